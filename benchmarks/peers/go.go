// Echo with Go's net: a goroutine for each connection, all on one thread at a time.
package main

import (
    "fmt"
    "net"
    "os"
    "runtime"
)

func echo(peer net.Conn) {
    defer peer.Close()
    received := make([]byte, 64*1024)
    for {
        count, err := peer.Read(received)
        if err != nil {
            return
        }
        if _, err = peer.Write(received[:count]); err != nil {
            return
        }
    }
}

func main() {
    runtime.GOMAXPROCS(1)
    listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
    if err != nil {
        fmt.Fprintln(os.Stderr, err)
        os.Exit(1)
    }
    fmt.Printf("listening on %s engine go\n", listener.Addr())
    for {
        if peer, err := listener.Accept(); err == nil {
            go echo(peer) // TCP_NODELAY is on unless told otherwise
        }
    }
}
