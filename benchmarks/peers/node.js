// Echo with Node's net.
const net = require('net');

const server = net.createServer({ noDelay: true }, (peer) => {
    peer.on('data', (received) => {
        if (!peer.write(received)) {
            peer.pause();
            peer.once('drain', () => peer.resume());
        }
    });
    peer.on('error', () => peer.destroy());
});
server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 }, () => {
    console.log(`listening on 127.0.0.1:${server.address().port} engine node`);
});
