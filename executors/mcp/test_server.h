// For tests: the scripts of MCP servers that behave and misbehave, run by python3 without packages.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include "common/files.h"
#include "executors/mcp/connection.h"

namespace flowmesh::mcp {

// Reads messages, answers `initialize`, and leaves all else to `handle(message)`, which a test
// appends. `send(x)` writes a message.
inline constexpr char kServerHead[] = R"PY(
import json, os, sys, threading, time
lock = threading.Lock()
def send(message):
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()
def answer(message, result):
    send({"id": message["id"], "result": result})
def text(message, value):
    answer(message, {"content": [{"type": "text", "text": value}]})
def run(handle):
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "initialize":
            answer(message, {"protocolVersion": message["params"]["protocolVersion"],
                             "capabilities": {"tools": {}}, "serverInfo": {"name": "t", "version": "1"}})
        else:
            handle(message)
)PY";

// A server whose `handle` is `body`, indented by four.
inline ServerSettings ScriptedServer(const std::filesystem::path& folder, const std::string& body) {
  const std::filesystem::path script = folder / "server.py";
  const absl::Status status = WriteFileAtomically(
      script, std::string(kServerHead) + "def handle(message):\n" + body + "\nrun(handle)\n");
  if (!status.ok()) std::abort();
  ServerSettings settings;
  settings.name = "scripted";
  settings.command = "python3";
  settings.args = {script.string()};
  settings.timeout = absl::Seconds(20);
  return settings;
}

// Serves over HTTP at the port of its argument, or at a free one, and says it. `add` tells the sum
// and the Authorization that came with the call; `die` streams half an answer and ends the process.
// It knows the sessions only that it has begun itself.
inline constexpr char kHttpServer[] = R"PY(
import http.server, json, os, sys, uuid
TOOLS = [{"name": "add", "description": "Adds.", "inputSchema": {"type": "object", "properties": {
             "a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}},
         {"name": "die"}]
SESSION = uuid.uuid4().hex
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method, params = message.get("method"), message.get("params") or {}
        if method != "initialize" and self.headers.get("Mcp-Session-Id") != SESSION:
            return self.send_error(404)
        if method == "initialize":
            result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                      "serverInfo": {"name": "t", "version": "1"}}
        elif method == "tools/list":
            result = {"tools": TOOLS}
        elif method == "tools/call":
            result = {"content": [{"type": "text", "text": self.call(**params)}]}
        else:
            self.send_response(202)
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Mcp-Session-Id", SESSION)
        self.end_headers()
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        self.wfile.write(json.dumps(answer).encode())
    def call(self, name, arguments):
        if name == "add":
            sum = arguments["a"] + arguments["b"]
            return str(sum) + " for " + self.headers.get("Authorization", "nobody")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b'data: {"jsonrpc": "2.0", "id": ')
        self.wfile.flush()
        os._exit(3)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
)PY";

}  // namespace flowmesh::mcp
