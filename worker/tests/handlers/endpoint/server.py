"""The example of docs/HANDLERS.md, on a free port, and with TLS when it is given a certificate."""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Jobs(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        pages = job["args"]["pages"]
        for n in range(pages):
            self.say({"progress": {"done": n + 1, "total": pages, "unit": "pages"}})
        self.say({"pages": pages})
        self.wfile.write(b"0\r\n\r\n")

    def say(self, line):
        text = json.dumps(line) + "\n"
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Jobs)
if len(sys.argv) > 1:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
