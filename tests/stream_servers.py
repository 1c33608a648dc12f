"""Streams on loopback for tests: HTTP in chunks, UDP, and as much of an RTSP server as FFmpeg asks for."""

import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# a transport stream's packets, as many as go into one datagram
DATAGRAM = 7 * 188


@contextmanager
def http_stream(pieces: Iterable[bytes], pause_s: float = 0.0) -> Iterator[str]:
    """Serve `pieces` as one body without length, one chunk each, as a file that grows; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(pause_s)
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live.ts"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def udp_stream(content: bytes, silence_s: float) -> Iterator[str]:
    """Send a transport stream as datagrams, from a moment after; yield an address that ends `silence_s` after the last."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            time.sleep(silence_s / 2)
            for first in range(0, len(content), DATAGRAM):
                sender.sendto(content[first : first + DATAGRAM], ("127.0.0.1", port))
                time.sleep(0.002)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield f"udp://127.0.0.1:{port}?timeout={int(silence_s * 1e6)}"
    thread.join()


@contextmanager
def rtsp_stream(content: bytes) -> Iterator[str]:
    """Play a transport stream to one client, as RTP between the answers of its connection; yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/live"
    description = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=live\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"

    def serve():
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as requests:
            for line in requests:
                method, headers = line.split()[0].decode(), {}
                while (header := requests.readline().strip()) != b"":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                status, extra, body = "200 OK", "", ""
                if method == "OPTIONS":
                    extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif method == "DESCRIBE":
                    body = description
                    extra = f"Content-Type: application/sdp\r\nContent-Base: {address}/\r\n"
                elif method == "SETUP" and "TCP" not in headers["transport"]:
                    status = "461 Unsupported Transport"
                elif method == "SETUP":
                    extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                answer = (
                    f"RTSP/1.0 {status}\r\nCSeq: {headers['cseq']}\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}"
                )
                connection.sendall(answer.encode())
                if method == "PLAY":
                    for number, first in enumerate(range(0, len(content), DATAGRAM)):
                        payload = content[first : first + DATAGRAM]
                        packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, 900 * number, 1) + payload
                        connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        listener.close()
        thread.join(10)
