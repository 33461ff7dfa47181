"""An executor in Python with a task type of its own, `wordcount`: how many words each item has."""
import json, os, signal, threading, time, uuid
from concurrent.futures import ThreadPoolExecutor
import grpc
from flowmesh.v1 import executor_pb2 as pb, executor_pb2_grpc as rpc

def count_words(spec, task):
    items = (spec.get("data") or {}).get("items")
    if not isinstance(items, list) or not all(isinstance(text, str) for text in items):
        raise ValueError("spec.data.items: expected a list of strings, got " + repr(items)[:200])
    for i, text in enumerate(items):
        if task.cancel_reason:
            raise InterruptedError(task.cancel_reason)
        time.sleep(spec.get("pause_sec", 0))  # for a task that takes its time
        yield {"index": i, "output": len(text.split())}

class Task:  # runs on a thread of its own, whether or not anybody reads its events
    def __init__(self, document):
        self.events, self.changed, self.cancel_reason = [], threading.Condition(), ""
        threading.Thread(target=self.run, args=(document,), daemon=True).start()
    def run(self, document):
        self.add(started=pb.TaskStarted())
        try:
            result = {"ok": True, "items": list(count_words(json.loads(document)["spec"], self))}
            self.add(finished=pb.TaskFinished(result_json=json.dumps(result)))
        except Exception as e:  # the end of a task, and of nothing else
            codes = {ValueError: "INVALID_SPEC", InterruptedError: "CANCELLED"}
            self.add(failed=pb.TaskFailed(code=codes.get(type(e), "TASK_ERROR"), message=str(e)))
    def add(self, **kind):
        with self.changed:
            self.events.append(pb.TaskEvent(sequence=len(self.events), **kind))
            self.events[-1].time.GetCurrentTime()
            self.changed.notify_all()
    def over(self):
        return bool(self.events) and self.events[-1].WhichOneof("kind") in ("finished", "failed")
    def read(self, start):
        while start < len(self.events) or not self.over():
            with self.changed:
                self.changed.wait_for(lambda: start < len(self.events))
            yield self.events[start]
            start += 1

class Executor(rpc.ExecutorServicer):
    id, key, task, lock = uuid.uuid4().hex, None, None, threading.Lock()  # the latest task only
    def running_id(self):
        return self.key[0] if self.key and not self.task.over() else ""
    def Describe(self, request, context):
        return pb.ExecutorDescription(
            name=os.environ.get("EXECUTOR_NAME", "python"), version="1", instance_id=self.id,
            runnable_task_types=["wordcount"], running_task_id=self.running_id())
    def Execute(self, request, context):
        with self.lock:
            if self.key != (request.task_id, request.attempt):
                if self.running_id():
                    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "another task runs")
                self.task = Task(request.document_json)
                self.key = (request.task_id, request.attempt)
            task = self.task
        yield from task.read(0)
    def Attach(self, request, context):
        if self.key != (request.task_id, request.attempt):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such task")
        yield from self.task.read(request.from_sequence)
    def Cancel(self, request, context):
        if not request.task_id or self.running_id() != request.task_id:
            return pb.CancelResponse(was_running=False)
        self.task.cancel_reason = request.reason or "cancelled"
        list(self.task.read(len(self.task.events)))  # until it is over
        return pb.CancelResponse(was_running=True)
    def GetTelemetry(self, request, context):
        return pb.Telemetry()

if __name__ == "__main__":
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(16), options=options)
    rpc.add_ExecutorServicer_to_server(Executor(), server)
    server.add_insecure_port(os.environ.get("EXECUTOR_LISTEN", "127.0.0.1:50062"))
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(1))
    server.wait_for_termination()
