#!/usr/bin/env python3
"""Makes the goldens of chat templates: what Transformers' apply_chat_template renders.

    pip install -r requirements.txt
    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36    # and unpack it
    python make_chat.py --templates vendor/llama.cpp/models/templates
    python make_chat.py --templates DIR --all --out DIR    # all of a folder, not to be kept

Per template NAME.jinja it writes NAME.json: its source, where it is from, and for each of the
conversations (cases.json, written too) and both values of add_generation_prompt the `text`, or
`failed` where the template or Transformers refuses it. The date of strftime_now is fixed.

Kept are templates of models under the Apache licence 2.0 or the MIT licence; those of other models
(Llama 3, Gemma, Hermes) are compared with --all: chat_goldens_test.cc reads this folder, and the
folder of FLOWMESH_CHAT_GOLDENS if that is set. checked.json says what was compared that way.
"""

import argparse
import datetime
import json
import pathlib

from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2025, 11, 3, 9, 0, 0, tzinfo=datetime.timezone.utc)
KEPT = {
    "Qwen-Qwen2.5-7B-Instruct": "Qwen/Qwen2.5-7B-Instruct, Apache-2.0",
    "Qwen-Qwen3-0.6B": "Qwen/Qwen3-0.6B, Apache-2.0",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistralai/Mistral-Nemo-Instruct-2407, Apache-2.0",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistralai/Mistral-Small-3.2-24B-Instruct-2506, Apache-2.0",
    "HuggingFaceTB-SmolLM3-3B": "HuggingFaceTB/SmolLM3-3B, Apache-2.0",
    "ibm-granite-granite-3.3-2B-Instruct": "ibm-granite/granite-3.3-2b-instruct, Apache-2.0",
    "microsoft-Phi-3.5-mini-instruct": "microsoft/Phi-3.5-mini-instruct, MIT",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B, MIT",
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place, in \"°C\" <or> 'F' & more",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "A town"},
                "days": {"type": "integer", "description": "How many days", "minimum": 1.5},
                "unit": {"type": "string", "enum": ["c", "f"], "description": "The unit"},
            },
            "required": ["place"],
        },
    },
}
NOTHING = {
    "type": "function",
    "function": {
        "name": "now",
        "description": "The time",
        "parameters": {"type": "object", "properties": {}},
    },
}


def call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def conversations():
    system = {"role": "system", "content": "You are brief. Ünïcode: 你好 \U0001f600"}
    user = {"role": "user", "content": "  Hello\nthere \"you\" <b> "}
    answer = {"role": "assistant", "content": "\n<think>\nHm.\n</think>\n\nHi!\n"}
    weather = [
        {"role": "user", "content": "Weather in Köln?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call("abcdefgh1", "get_weather", {"place": "Köln", "days": 2})],
        },
        {
            "role": "tool",
            "name": "get_weather",
            "tool_call_id": "abcdefgh1",
            "content": "{\"sun\": true}",
        },
    ]
    twice = [
        {"role": "user", "content": "Both"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                call("abcdefgh1", "get_weather", {"place": "Bonn"}),
                call("abcdefgh2", "now", {}),
            ],
        },
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefgh1", "content": "rain"},
        {"role": "tool", "name": "now", "tool_call_id": "abcdefgh2", "content": "12:00"},
        {"role": "assistant", "content": "Rain at noon."},
        {"role": "user", "content": "Thanks"},
    ]
    return [
        {"name": "user", "messages": [user]},
        {"name": "system", "messages": [system, user]},
        {"name": "turns", "messages": [system, user, answer, {"role": "user", "content": "And?"}]},
        {"name": "tools", "messages": [system, user], "tools": [WEATHER, NOTHING]},
        {"name": "called", "messages": weather, "tools": [WEATHER]},
        {"name": "twice", "messages": [system] + twice, "tools": [WEATHER, NOTHING]},
        {
            "name": "no thinking",
            "messages": [user],
            "variables": {
                "enable_thinking": False,
                "tools_in_user_message": False,
                "thinking_budget": 600,
                "functions": "none",  # which Firefunction wants in place of tools
                "datetime": "today",
            },
        },
        {"name": "two users", "messages": [user, user]},
    ]


def render(source, case, add_generation_prompt):
    compiled = chat_template_utils._compile_jinja_template(source)
    compiled.globals["strftime_now"] = NOW.strftime
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[case["messages"]],
            tools=case.get("tools"),
            chat_template=source,
            add_generation_prompt=add_generation_prompt,
            **{**SPECIAL, **case.get("variables", {})},
        )
    except Exception as error:  # of any kind: templates raise what they like
        return {"failed": f"{type(error).__name__}: {error}"[:200]}
    return {"text": rendered[0]}


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--templates", type=pathlib.Path, required=True)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    options = parser.parse_args()
    cases = conversations()
    head = {"special_tokens": SPECIAL, "now": NOW.timestamp(), "cases": cases}
    write(options.out / "cases.json", head)
    for file in sorted(options.templates.glob("*.jinja")):
        if not options.all and file.stem not in KEPT:
            continue
        source = file.read_text(encoding="utf-8")
        answers = []
        for case in cases:
            for prompt in (True, False):
                answer = render(source, case, prompt)
                answers.append({"case": case["name"], "add_generation_prompt": prompt, **answer})
        golden = {"origin": KEPT.get(file.stem, ""), "source": source, "answers": answers}
        write(options.out / f"{file.stem}.json", golden)


if __name__ == "__main__":
    main()
