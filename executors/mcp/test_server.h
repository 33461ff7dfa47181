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

}  // namespace flowmesh::mcp
