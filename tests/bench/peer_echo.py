"""The least that a worker in Python does for an echo task, on one thread with redis-py: the peer of line_bench.

Reads `tasks`, and for each one sets its status, publishes TASK_STARTED, writes responses.json and
manifest.json, and publishes TASK_SUCCEEDED. Publishes as many tasks to itself as asked, back to
back, and prints name<TAB>value: tasks per second, from the first publication to the last event.
"""
import argparse
import hashlib
import json
import multiprocessing
import os
import tempfile
import time
from datetime import datetime, timezone

import redis


def now():
    return datetime.now(timezone.utc).isoformat()


def run_task(link, results, worker, message):
    task_id = message["task_id"]
    spec = message["task"]["spec"]

    def event(kind, payload):
        link.publish("tasks.events", json.dumps({"type": kind, "ts": now(), "worker_id": worker, "task_id": task_id, "status": None,
                                                 "error": None, "payload": payload}))

    link.hset(f"worker:{worker}", mapping={"status": "RUNNING", "last_seen": now()})
    event("TASK_STARTED", {"taskType": spec["taskType"], "started_at": now()})
    folder = os.path.join(results, task_id)
    os.makedirs(os.path.join(folder, "logs"))
    os.makedirs(os.path.join(folder, "artifacts"))
    text = json.dumps({"ok": True, "echo": spec}, indent=2)
    with open(os.path.join(folder, "responses.json"), "w") as f:
        f.write(text)
    with open(os.path.join(folder, "manifest.json"), "w") as f:
        json.dump({"task_id": task_id, "artifacts": [{"path": "responses.json", "size": len(text),
                                                      "sha256": hashlib.sha256(text.encode()).hexdigest()}]}, f, indent=2)
    event("TASK_SUCCEEDED", {"taskType": spec["taskType"], "finished_at": now()})
    link.hset(f"worker:{worker}", mapping={"status": "IDLE", "last_seen": now()})


def publish(url, tasks):
    link = redis.Redis.from_url(url)
    spec = {"taskType": "echo", "data": {"type": "list", "items": ["are you there"]}}
    for i in range(tasks):
        link.publish("tasks", json.dumps({"task_id": f"echo-{i}", "task": {"spec": spec}, "task_type": "echo",
                                          "assigned_worker": "peer", "dispatched_at": now(), "parent_task_id": None}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--redis", required=True)
    parser.add_argument("--tasks", type=int, required=True)
    args = parser.parse_args()
    link = redis.Redis.from_url(args.redis)
    inbox = link.pubsub(ignore_subscribe_messages=True)
    inbox.subscribe("tasks")
    while link.pubsub_numsub("tasks")[0][1] == 0:
        pass

    with tempfile.TemporaryDirectory() as results:
        publisher = multiprocessing.Process(target=publish, args=(args.redis, args.tasks))
        start = time.perf_counter()
        publisher.start()
        done = 0
        while done < args.tasks:
            message = inbox.get_message(timeout=10)
            if message is None:
                continue
            run_task(link, results, "peer", json.loads(message["data"]))
            done += 1
        print(f"echo\t{args.tasks / (time.perf_counter() - start):.1f}")
        publisher.join()


if __name__ == "__main__":
    main()
