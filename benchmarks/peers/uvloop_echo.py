"""Echo with uvloop: an asyncio Protocol, which costs less than its streams."""
import asyncio
import sys

import uvloop


class echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.send = transport.write

    def data_received(self, data):
        self.send(data)

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(echo, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(f"listening on 127.0.0.1:{port} engine uvloop", flush=True)
    await server.serve_forever()


uvloop.install()
asyncio.run(main())
