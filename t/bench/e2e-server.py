# A small server with a database, as the tests of t/bench/e2e want it: GET and POST /items.
import json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import psycopg2

local = threading.local()


def query(sql, *args):
    if not hasattr(local, "db"):
        local.db = psycopg2.connect(os.environ["DATABASE_URL"])
        local.db.autocommit = True
    with local.db.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchall()


class Handler(BaseHTTPRequestHandler):
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(query("SELECT name FROM items ORDER BY id"))

    def do_POST(self):
        name = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(query("INSERT INTO items (name) VALUES (%s) RETURNING id", name))

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.serve_forever()
