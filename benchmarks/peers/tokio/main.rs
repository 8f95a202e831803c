// Echo with tokio on its runtime of one thread: a task for each connection.
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn echo(mut peer: TcpStream) -> std::io::Result<()> {
    peer.set_nodelay(true)?;
    // Not vec![0; N]: a page is had only once it is touched.
    let mut received = Vec::with_capacity(64 * 1024);
    loop {
        received.clear();
        if peer.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
        peer.write_all(&received).await?;
    }
}

async fn serve(port: String) -> std::io::Result<()> {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on {} engine tokio", listener.local_addr()?);
    loop {
        if let Ok((peer, _)) = listener.accept().await {
            tokio::spawn(echo(peer));
        }
    }
}

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(serve(port))
}
