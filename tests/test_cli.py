"""The command line, in this process, and where the process matters in one of its own."""

import contextlib
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMAND, environment, openai, run_here
from protocols import PROTOCOLS, Chat, Generate, Messages, ToolCall

import rxllm
from rxllm import cli
from rxllm.cli import console
from rxllm.cli.screen import Screen
from rxllm.testing import End, Endless, FakeServer, Reply

TOY_HINT = (
    "rxllm: the embedded toy model answers; for a real model set its key, as `rxllm models` lists, or use -m NAME.\n"
)
CHAT = Chat()
HEL_LO = CHAT.stream(["Hel", "lo"])
UNTIL_HEL = HEL_LO[:2]  # the first event has no text


def run(*arguments, stdin="", **variables):
    """Run the command to its end, in this process."""
    return run_here(arguments, stdin, variables)


def run_apart(*arguments, stdin="", **variables):
    """Run the command to its end, in a process of its own, where a warning is an error."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        env=environment(**variables),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )


@pytest.fixture
def start(monkeypatch):
    """Return a function that starts the command in the background, with Ctrl-C enabled."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = []

    def start(*arguments, **variables):
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield start
    signal.signal(signal.SIGINT, before)
    for process in running:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            pipe.close()


@pytest.fixture
def server():
    """A server that answers Hello in OpenAI's protocol."""
    with FakeServer(Reply(HEL_LO)) as server:
        yield server


# ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_key_the_embedded_model_answers():
    """Without a model and a key the toy answers on stdout, and one line on stderr says how to get a real model."""
    done = run_apart("Write me a song about sparkling water.", "--seed", "7")
    assert done.returncode == 0
    assert done.stderr == TOY_HINT
    assert done.stdout.strip()
    assert done.stdout.endswith("\n")


def test_named_embedded_model_prints_no_hint():
    """``-m embedded`` answers without the hint on stderr."""
    assert run("-m", "embedded", "--seed", "7", "hi").stderr == ""
    assert run("hi", "--seed", "7", RXLLM_MODEL="embedded").stderr == ""


def test_seed_determines_the_toy_models_answer():
    """The same seed gives the same answer, another seed another."""
    first, again, other = (run("-m", "embedded", "--seed", seed, "the sea").stdout for seed in ("7", "7", "8"))
    assert first == again
    assert first != other


def test_several_words_form_one_prompt(server):
    """Arguments are joined by a space; options may stand between them."""
    run("tell", "me", "--temperature", "0", "more", **openai(server))
    body = server.requests[0].json
    assert body["messages"] == [{"role": "user", "content": "tell me more"}]
    assert body["temperature"] == 0
    assert body["model"] == "gpt-5-mini"


def test_system_and_sampling_options_are_sent(server):
    """The request has the system prompt and the sampling options."""
    run_apart("hi", "--system", "Be brief.", "--max-tokens", "9", "--seed", "3", "-m", "openai:m", **openai(server))
    body = server.requests[0].json
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert (body["max_tokens"], body["seed"], body["model"]) == (9, 3, "m")


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        (("--", "-x"), "-x"),
        (("a", "--", "-m", "b"), "a -m b"),
        (("a", "--seed", "3", "b", "--", "--", "c"), "a b -- c"),
    ],
)
def test_everything_after_two_dashes_is_prompt(server, arguments, prompt):
    """Arguments after ``--`` belong to the prompt, even if they look like options."""
    done = run(*arguments, **openai(server))
    assert (0, "Hello\n") == (done.returncode, done.stdout)
    assert prompt == server.requests[0].json["messages"][0]["content"]


def test_command_takes_precedence_over_a_prompt(server):
    """The first argument decides; after ``--``, or behind another word, it is a word like any other."""
    assert "| `openai` |" in run("models", **openai(server)).stdout
    assert [] == server.requests
    for arguments in (("--", "models"), ("all", "models"), ("-m", "openai:m", "models")):
        assert "Hello\n" == run(*arguments, **openai(server)).stdout
    assert ["models", "all models", "models"] == [each.json["messages"][0]["content"] for each in server.requests]


def test_command_with_further_words_is_a_usage_error():
    """The message says how to ask with these words."""
    done = run("models", "of", "the", "world")
    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "to ask with these words, write rxllm -- models …" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_prompt_is_read_from_stdin(server, arguments):
    """Without arguments, or with ``-``, stdin is the prompt, without its final newline."""
    done = run(*arguments, stdin="two\nlines ⚡\n", **openai(server))
    assert done.stdout == "Hello\n"
    assert server.requests[0].json["messages"][0]["content"] == "two\nlines ⚡"


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        (("Summarise:",), "two\nlines\n Summarise:"),
        (("Summarise", "this:"), "two\nlines\n Summarise this:"),
        (("Summarise:", "-"), "Summarise: two\nlines"),
        (("-", "Summarise:"), "two\nlines\n Summarise:"),
        (("five", "-", "three"), "two\nlines\n five - three"),
        (("--", "-"), "two\nlines\n -"),
        (("--system", "Be brief.", "Summarise:", "-"), "Summarise: two\nlines"),
    ],
)
def test_stdin_and_arguments_are_joined(server, arguments, prompt):
    """Piped text goes before the arguments, or replaces a ``-`` as the first or last word."""
    done = run(*arguments, stdin="\ufefftwo\nlines\n", **openai(server))
    assert (0, "Hello\n", "") == (done.returncode, done.stdout, done.stderr)
    assert prompt == server.requests[0].json["messages"][-1]["content"]


@pytest.mark.parametrize("stdin", ["", "\n", " \n\n"])
def test_blank_stdin_is_ignored(server, stdin):
    """Piped white space leaves the arguments unchanged."""
    run("hi", stdin=stdin, **openai(server))
    assert "hi" == server.requests[0].json["messages"][0]["content"]


@pytest.mark.parametrize("variable", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_environment_key_selects_the_vendor(variable):
    """With only a key of Anthropic, the request goes to Anthropic."""
    with FakeServer(Reply(Messages().stream(["Hel", "lo"]))) as server:
        done = run("hi", ANTHROPIC_BASE_URL=server.url, **{variable: "key"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello\n", "")
    assert server.requests[0].json["model"] == "claude-sonnet-4-6"


@pytest.mark.parametrize("variable", ["GOOGLE_API_KEY", "GEMINI_API_KEY"])
def test_environment_key_of_google_selects_gemini(variable):
    """With only a key of Google, the request goes to Gemini."""
    with FakeServer(Reply(Generate().stream(["Hel", "lo"]))) as server:
        done = run("hi", GOOGLE_GEMINI_BASE_URL=server.url, **{variable: "key"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello\n", "")
    assert "/v1beta/models/gemini-flash-latest:streamGenerateContent" == server.requests[0].path


def test_named_model_wins_over_keys(server):
    """RXLLM_MODEL wins over keys, and -m over both."""
    run("hi", **openai(server), RXLLM_MODEL="openai:from-environment")
    run("hi", "-m", "openai:from-option", **openai(server), RXLLM_MODEL="openai:from-environment")
    assert [request.json["model"] for request in server.requests] == ["from-environment", "from-option"]


def test_final_newline_is_not_doubled(server):
    """An answer that ends with a newline gets no second one."""
    server.reply(Reply(CHAT.stream(["Hello\n"])))
    assert run("hi", **openai(server)).stdout == "Hello\n"


def test_usage_is_printed_on_stderr(server):
    """--usage prints the tokens in one line on stderr and leaves stdout unchanged."""
    done = run("hi", "--usage", **openai(server))
    assert done.stdout == "Hello\n"
    assert done.stderr == "rxllm: 3 input tokens, 5 output tokens, stop.\n"


def test_timeline_is_drawn_on_stderr(server):
    """--timeline draws the run after the answer, and leaves stdout unchanged."""
    done = run("hi", "--timeline", **openai(server))
    assert done.stdout == "Hello\n"
    assert re.search(r"^OpenAI -.*\|  .*, 5 tokens", done.stderr)


def test_timeline_is_drawn_after_a_failure(server):
    """It shows what happened, also when the answer failed; without a run there is nothing to draw."""
    server.reply(Reply.json({"error": {"message": "No."}}, status=400))
    assert "x  BadRequest 400 after" in run("hi", "--timeline", **openai(server)).stderr
    assert "runs" not in run("hi", "--timeline", "--tools", "nowhere:to", **openai(server)).stderr


def test_missing_usage_is_reported_as_missing(server):
    """If the provider reports no tokens, the line has no number."""
    server.reply(Reply(CHAT.stream(["hi"], usage=None)))
    assert run("hi", "--usage", **openai(server)).stderr == "rxllm: the provider reported no usage, stop.\n"


def test_json_prints_one_line_per_chunk(server):
    """--json prints each chunk as one line with only its set fields; the lines add up to the answer."""
    server.reply(Reply(CHAT.stream(["Hé", "llo"], reasoning=["hm"], tool_call=ToolCall())))
    done = run("hi", "--json", **openai(server))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stdout.count("\n") == len(lines)
    assert [json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines] == done.stdout.splitlines()
    assert "".join(line.get("text", "") for line in lines) == "Héllo"
    assert "".join(line.get("reasoning", "") for line in lines) == "hm"
    assert "".join(call.get("arguments", "") for line in lines for call in line.get("tool_calls", [])) == (
        ToolCall().arguments
    )
    assert [line["usage"] for line in lines if "usage" in line] == [{"input_tokens": 3, "output_tokens": 5}]
    assert [line["finish_reason"] for line in lines if "finish_reason" in line] == ["tool_call"]
    finish = {"finish_reason", "raw_finish_reason"}
    facts = {"usage", "model", "id", "provider"}
    assert {"text", "reasoning", "tool_calls"} | facts | finish == {k for x in lines for k in x}


def test_narrow_encoding_replaces_characters(server):
    """A character that stdout's encoding lacks becomes a question mark; the rest of the answer stays."""
    server.reply(Reply(CHAT.stream(["caf", "é ⚡"])))
    done = run_apart("hi", **openai(server), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "caf? ?\n")


def test_refusal_is_printed_on_stderr(server):
    """A refusal is not the answer, so it goes to stderr."""
    refusal = {"id": "1", "choices": [{"index": 0, "delta": {"refusal": "No."}, "finish_reason": "stop"}]}
    server.reply(Reply([b"data: " + json.dumps(refusal).encode() + b"\n\n", CHAT.terminal]))
    done = run("hi", **openai(server))
    assert (done.stdout, done.stderr) == ("", "rxllm: the model refused: No.\n")


CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (CLIPBOARD, "\\u001b]52;c;ZXZpbA==\\u0007"),
        ("\x1b]0;title\x1b\\", "\\u001b]0;title\\u001b\\"),
        ("\x1b[2J\x1b[31m", "\\u001b[2J\\u001b[31m"),
        ("\x9d52;c;ZXZpbA==\x9c", "\\u009d52;c;ZXZpbA==\\u009c"),
        ("real\rfake\b\x7f", "real\\u000dfake\\u0008\\u007f"),
        ("\u202etxt.exe\u2066", "\\u202etxt.exe\\u2066"),
        ("a\tb\nc", "a\tb\nc"),
        ("שלום\u200f 👩\u200d🚀", "שלום\u200f 👩\u200d🚀"),
    ],
)
def test_control_characters_are_escaped(server, sent, shown):
    """A model's control characters, split ones included, reach the terminal only with --raw."""
    server.reply(Reply(CHAT.stream([*sent])))
    assert f"{shown}\n" == run("hi", **openai(server)).stdout
    assert f"{sent}\n" == run("--raw", "hi", **openai(server)).stdout
    lines = run("hi", "--json", "--raw", **openai(server)).stdout
    assert sent == "".join(json.loads(line).get("text", "") for line in lines.splitlines())
    assert {"\n"} == {character for character in lines if ord(character) < 32 or 127 <= ord(character) < 160}


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_control_characters_of_errors_are_escaped(protocol):
    """Error messages and refusals are printed with escapes, each on one line."""
    name = "anthropic:m" if protocol.name == "messages" else "openai:m"
    name = "openai:davinci-002" if protocol.name == "completions" else name
    said = f"no\n{CLIPBOARD}\x9b2J\rfake"
    with FakeServer() as server:
        variables = {**openai(server), "ANTHROPIC_API_KEY": "key", "ANTHROPIC_BASE_URL": server.url}
        server.reply(Reply.json(protocol.error_body(400, said), status=400), Reply([protocol.error_frame(said)]))
        message = [run("-m", name, "hi", **variables).stderr for _ in range(2)]
    for line in message:
        assert line.startswith("rxllm: ")
        assert "no \\u001b]52;c;ZXZpbA==\\u0007\\u009b2J" in line
        assert line[:-1].isprintable()


@pytest.mark.parametrize(
    ("finish", "message", "returned"),
    [
        ("content_filter", "rxllm: the answer is cut short: the provider's content filter stopped it.\n", 0),
        ("length", "rxllm: the answer is cut short: the token limit was reached.\n", 0),
        ("stop", "", 0),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_incomplete_answer_is_reported(server, finish, message, returned, form):
    """Standard error says why the answer ended early."""
    server.reply(Reply(CHAT.stream(["Hel"], finish=finish)))
    done = run("hi", *form, **openai(server))
    assert (message, returned) == (done.stderr, done.returncode)
    assert "Hel" in done.stdout


def test_requested_token_limit_is_not_reported(server):
    """With --max-tokens, an answer of that length is what the user asked for."""
    server.reply(Reply(CHAT.stream(["Hel"], finish="length")))
    assert "" == run("hi", "--max-tokens", "1", **openai(server)).stderr


def test_finish_reason_error_exits_with_1(capsys, monkeypatch):
    """The text so far is printed; stderr has the provider's own finish reason."""

    class Breaks(rxllm.LLM):
        async def chunks(self, request):
            yield rxllm.Chunk("Hel")
            yield rxllm.Chunk(finish_reason="error", raw_finish_reason="abort\x1b")

    monkeypatch.setattr(console, "_model", lambda name: Breaks())
    monkeypatch.setattr(sys, "stdin", None)
    assert 1 == cli.main(["hi"])
    assert ("Hel\n", "rxllm: the answer is incomplete: the provider failed (abort\\u001b).\n") == capsys.readouterr()


def test_restarted_answer_starts_a_new_line(capsys):
    """Printed text cannot be removed, so a restarted answer begins on a new line, and stderr says so."""
    screen = Screen(as_json=False)
    for chunk in (rxllm.Chunk("Hel"), rxllm.Chunk("Good", reset=True), rxllm.Chunk("bye")):
        screen.show(chunk)
    screen.end()
    assert capsys.readouterr() == ("Hel\nGoodbye\n", "rxllm: the answer starts again.\n")


def test_main_can_be_called_from_a_program():
    """`main` writes to the current `sys.stdout` and returns the exit code."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.main(["-m", "embedded", "--seed", "1", "hi"]) == 0
    assert printed.getvalue() == run("-m", "embedded", "--seed", "1", "hi").stdout


def test_version_option():
    """--version prints the package's version."""
    assert run("--version").stdout == f"rxllm {rxllm.__version__}\n"


# ── usage errors and failures ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["-m", "foo:bar", "hi"], "openai"),
        (["-m", "opnai:gpt-5-mini", "hi"], "openai:gpt-5-mini"),
        (["-m", "nope", "hi"], "xai, zai.\n"),
        (["-m", "openai", "hi"], "openai:model"),
        (["-m", "openai:gpt-5-mini", "hi"], "OPENAI_API_KEY"),
        (["-m", "anthropic:claude-sonnet-4-6", "hi"], "ANTHROPIC_API_KEY"),
        (["-m", "embedded", "--temperature", "-1", "hi"], "temperature"),
        (["-m", "embedded", "--max-tokens", "0", "hi"], "max_tokens"),
        (["-m", "embedded", "--seed", "x", "hi"], "--seed"),
        (["--modle", "embedded", "hi"], "--modle"),
        (["-m", "embedded", ""], "empty"),
        (["-m", "embedded"], "empty"),
    ],
    ids=["provider", "typo", "unlike any", "no model", "no OpenAI key", "no Anthropic key", "temperature", "max_tokens",
         "seed", "option", "empty argument", "empty stdin"],
)  # fmt: skip
def test_usage_error_is_one_line(arguments, hint):
    """A usage error exits with 2 and one line on stderr that says what to change; stdout stays empty."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("rxllm: ")
    assert hint in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8:surrogateescape"])
@pytest.mark.parametrize("arguments", [(), ("Summarise:",), ("Summarise:", "-"), ("chat", "--no-history")])
def test_undecodable_stdin_is_a_usage_error(arguments, encoding):
    """Bytes that are not text exit with 2 and a message, even in locales where Python accepts them."""
    variables = environment(PYTHONIOENCODING=encoding)
    done = subprocess.run(
        [*COMMAND, *arguments, "-m", "embedded"], input=b"caf\xff", env=variables, capture_output=True, check=False
    )
    assert (2, b"") == (done.returncode, done.stdout)
    assert (
        b"rxllm: Standard input is not text in utf-8: it holds the byte 0xff. Convert it first, for example with "
        b"iconv.\n"
    ) == done.stderr


@pytest.mark.skipif(os.name != "posix", reason="elsewhere arguments are always text")
@pytest.mark.parametrize("arguments", [[b"caf\xff"], [b"hi", b"--system", b"\xff"], [b"--", b"\xff"]])
def test_undecodable_argument_is_a_usage_error(arguments):
    """An argument that is not text exits with 2 and a message that quotes it; nothing is sent."""
    done = subprocess.run(
        [*COMMAND, "-m", "embedded", *arguments], env=environment(), capture_output=True, stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    assert (2, b"") == (done.returncode, done.stdout)
    assert b"\\udcff' is not text in utf-8.\n" in done.stderr
    assert 1 == done.stderr.count(b"\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_terminal_without_prompt_is_a_usage_error():
    """At a terminal, a missing prompt is an error; the command does not wait for input."""
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(COMMAND, stdin=theirs, env=environment(), capture_output=True, timeout=100, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"no prompt" in done.stderr


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_refused_request_exits_with_1(server, status):
    """The server's reason is one line on stderr, without the key."""
    soon = {"retry-after-ms": "1"}  # retryable statuses are retried
    server.reply(Reply.json(CHAT.error_body(status, "It went\nwrong"), status=status, headers=soon))
    done = run("hi", **openai(server))
    assert (done.returncode, done.stdout) == (1, "")
    assert "It went wrong" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "a-secret-key" not in done.stderr


def test_missing_server_exits_with_1():
    """The message names the address."""
    with FakeServer() as gone:
        pass
    done = run("hi", **openai(gone))
    assert (done.returncode, done.stdout) == (1, "")
    assert gone.url in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "ending",
    [[CHAT.error_frame("It went wrong")], [End.CLEAN], [End.FIN], [End.RST]],
    ids=["error frame", "truncated", "closed", "reset"],
)
def test_failure_in_the_middle_keeps_the_text(server, ending):
    """The text so far stays and its line is ended; one line on stderr says what failed."""
    server.reply(Reply([*UNTIL_HEL, *ending]))
    done = run("hi", **openai(server))
    assert (done.returncode, done.stdout) == (1, "Hel\n")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


# ── cancellation ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_ctrl_c_in_the_middle_of_an_answer(server, start):
    """Ctrl-C exits with 130 without a traceback, keeps the text and closes the request."""
    server.reply(Reply([*UNTIL_HEL, End.HANG]))
    process = start("hi", **openai(server))
    assert process.stdout.read(3) == b"Hel"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=100)
    assert (process.returncode, rest, errors) == (130, b"\n", b"")
    server.exchange().wait_closed()
    assert server.exchange().aborted


def test_ctrl_c_before_the_answer(server, start):
    """Ctrl-C while the server is silent also exits with 130 and closes the request."""
    server.reply(Reply([End.HANG]))
    process = start("hi", **openai(server))
    server.exchange().arrived.wait()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=100) == (b"", b"")
    assert process.returncode == 130
    server.exchange().wait_closed()


def test_closed_pipe_exits_with_0(server, start):
    """When the reader closes the pipe, as head does, the command exits silently with 0 and closes the request."""
    server.reply(Reply([*UNTIL_HEL, Endless(HEL_LO[2])]))
    process = start("hi", **openai(server))
    assert process.stdout.read(3) == b"Hel"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=100) == 0
    server.exchange().wait_closed()
    assert server.exchange().aborted


@pytest.mark.skipif(not hasattr(select, "poll"), reason="can't look at a pipe without writing to it")
def test_closed_pipe_is_detected_while_the_model_is_silent(server, start):
    """The request is closed although the command writes nothing."""
    server.reply(Reply([End.HANG]))
    process = start("hi", **openai(server))
    server.exchange().arrived.wait()
    process.stdout.close()
    assert b"" == process.stderr.read()
    assert 0 == process.wait(timeout=100)
    server.exchange().wait_closed()
    assert server.exchange().aborted


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes descriptors")
@pytest.mark.parametrize(
    ("closed", "returned", "message"), [("1>&-", 1, b"rxllm: standard output is closed.\n"), ("2>&-", 0, b"")]
)
def test_closed_output_streams(closed, returned, message):
    """With stderr closed, its messages never appear on stdout; with stdout closed, the command fails with a message."""
    command = f'"$@" --max-tokens 3 --seed 1 hi {closed}'
    whole = ["/bin/sh", "-c", command, "sh", *COMMAND]
    done = subprocess.run(whole, env=environment(), capture_output=True, check=False)
    assert (returned, returned == 0) == (done.returncode, done.stdout != b"")
    assert message == done.stderr.removeprefix(TOY_HINT.encode())
    assert b"rxllm:" not in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_exits_with_1():
    """A write error is reported in one line."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "-m", "embedded", "hi"], env=environment(), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_help_names_both_forms_of_an_option():
    """The short form is one letter: argparse would take it for the beginning of a longer one, too."""
    shown = run("--help").stdout
    assert re.search(r"-m(?: NAME)?, --model NAME", shown)
