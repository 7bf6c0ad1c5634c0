"""The command line, run as a process of its own."""

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
from protocols import PROTOCOLS, Chat, Messages, ToolCall

import rxllm
from rxllm import cli
from rxllm.testing import End, Endless, FakeServer, Reply

NEWS = (
    "rxllm: this is the embedded toy model; for a real one set OPENAI_API_KEY or ANTHROPIC_API_KEY, or say -m NAME.\n"
)
CHAT = Chat()
HEL_LO = CHAT.stream(["Hel", "lo"])
UNTIL_HEL = HEL_LO[:2]  # the first event has no text


def environment(**more):
    """This process's environment, which `conftest` has bared, with the package to import."""
    return {**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1]), "PYTHONIOENCODING": "utf-8", **more}


def openai(server):
    """The environment in which the server is OpenAI's."""
    return {"OPENAI_API_KEY": "a-secret-key", "OPENAI_BASE_URL": f"{server.url}/v1"}


COMMAND = [sys.executable, "-W", "error", "-m", "rxllm"]


def run(*arguments, stdin="", **variables):
    """The finished command."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        env=environment(**variables),
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


@pytest.fixture
def start(monkeypatch):
    """Starts the command and leaves it running; Ctrl-C reaches it even where this process was told to ignore it."""
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
    """A server that answers Hello in the protocol of OpenAI."""
    with FakeServer(Reply(HEL_LO)) as server:
        yield server


# ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_key_the_embedded_model_answers():
    """Without a model and a key the toy answers on stdout, and stderr says so in one line that names the way on."""
    done = run("Write me a song about sparkling water.")
    assert done.returncode == 0
    assert done.stderr == NEWS
    assert done.stdout.strip()
    assert done.stdout.endswith("\n")


def test_named_embedded_model_is_silent():
    """Who asked for the toy is not told that it is one."""
    assert run("-m", "embedded", "hi").stderr == ""
    assert run("hi", RXLLM_MODEL="embedded").stderr == ""


def test_seed_decides():
    """The same seed gives the same answer, another seed another."""
    first, again, other = (run("-m", "embedded", "--seed", seed, "the sea").stdout for seed in ("7", "7", "8"))
    assert first == again
    assert first != other


def test_words_are_one_prompt(server):
    """Several arguments are joined by a space, options may stand between them."""
    run("tell", "me", "--temperature", "0", "more", **openai(server))
    body = server.requests[0].json
    assert body["messages"] == [{"role": "user", "content": "tell me more"}]
    assert body["temperature"] == 0
    assert body["model"] == "gpt-5-mini"


def test_options_travel(server):
    """The system's text and the sampling options are sent."""
    run("hi", "--system", "Be brief.", "--max-tokens", "9", "--seed", "3", "-m", "openai:m", **openai(server))
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
def test_after_two_dashes_all_is_prompt(server, arguments, prompt):
    """Also what looks like an option."""
    done = run(*arguments, **openai(server))
    assert (0, "Hello\n") == (done.returncode, done.stdout)
    assert prompt == server.requests[0].json["messages"][0]["content"]


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_prompt_from_stdin(server, arguments):
    """Without an argument, or with -, the prompt is what comes on stdin, without the line's end."""
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
def test_stdin_joins_the_arguments(server, arguments, prompt):
    """Piped text goes before the arguments, as the tool llm has it, or where a - is the first or last word."""
    done = run(*arguments, stdin="\ufefftwo\nlines\n", **openai(server))
    assert (0, "Hello\n", "") == (done.returncode, done.stdout, done.stderr)
    assert prompt == server.requests[0].json["messages"][-1]["content"]


@pytest.mark.parametrize("stdin", ["", "\n", " \n\n"])
def test_blank_stdin_adds_nothing(server, stdin):
    """A pipe without text leaves the arguments as they are."""
    run("hi", stdin=stdin, **openai(server))
    assert "hi" == server.requests[0].json["messages"][0]["content"]


@pytest.mark.parametrize("variable", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_key_decides_vendor(variable):
    """With a key of Anthropic's only, Anthropic is asked."""
    with FakeServer(Reply(Messages().stream(["Hel", "lo"]))) as server:
        done = run("hi", ANTHROPIC_BASE_URL=server.url, **{variable: "key"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello\n", "")
    assert server.requests[0].json["model"] == "claude-sonnet-4-6"


def test_named_model_wins_over_key(server):
    """RXLLM_MODEL wins over keys, -m over both."""
    run("hi", **openai(server), RXLLM_MODEL="openai:from-environment")
    run("hi", "-m", "openai:from-option", **openai(server), RXLLM_MODEL="openai:from-environment")
    assert [request.json["model"] for request in server.requests] == ["from-environment", "from-option"]


def test_line_end_is_not_doubled(server):
    """A text that ends its line gets no second end."""
    server.reply(Reply(CHAT.stream(["Hello\n"])))
    assert run("hi", **openai(server)).stdout == "Hello\n"


def test_usage_on_stderr(server):
    """--usage tells the tokens in one line on stderr, and leaves stdout alone."""
    done = run("hi", "--usage", **openai(server))
    assert done.stdout == "Hello\n"
    assert done.stderr == "rxllm: 3 input tokens, 5 output tokens, stop.\n"


def test_unknown_usage_is_no_number(server):
    """Where the provider says nothing about tokens, no number is made up."""
    server.reply(Reply(CHAT.stream(["hi"], usage=None)))
    assert run("hi", "--usage", **openai(server)).stderr == "rxllm: the provider told no usage, stop.\n"


def test_json_lines_are_the_chunks(server):
    """--json prints a chunk a line, with the fields that are there and no others; together they are the answer."""
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
    assert {"text", "reasoning", "tool_calls", "usage", "model", "id"} | finish == {k for x in lines for k in x}


def test_narrow_terminal_loses_characters_only(server):
    """A character that stdout's encoding has not becomes a question mark; the rest of the answer stays."""
    server.reply(Reply(CHAT.stream(["caf", "é ⚡"])))
    done = run("hi", **openai(server), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "caf? ?\n")


def test_refusal_is_no_answer(server):
    """What a model says when it refuses goes to stderr, for it is not the answer."""
    refusal = {"id": "1", "choices": [{"index": 0, "delta": {"refusal": "No."}, "finish_reason": "stop"}]}
    server.reply(Reply([b"data: " + json.dumps(refusal).encode() + b"\n\n", CHAT.terminal]))
    done = run("hi", **openai(server))
    assert (done.stdout, done.stderr) == ("", "rxllm: the model refuses: No.\n")


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
def test_control_characters_are_shown(server, sent, shown):
    """The terminal obeys nothing that a model writes, also where a sequence is split; --raw sends it as it came."""
    server.reply(Reply(CHAT.stream([*sent])))
    assert f"{shown}\n" == run("hi", **openai(server)).stdout
    raw = subprocess.run([*COMMAND, "--raw", "hi"], env=environment(**openai(server)), capture_output=True, check=True,
                         stdin=subprocess.DEVNULL)  # fmt: skip
    assert f"{sent}\n".encode() == raw.stdout
    lines = run("hi", "--json", "--raw", **openai(server)).stdout
    assert sent == "".join(json.loads(line).get("text", "") for line in lines.splitlines())
    assert {"\n"} == {character for character in lines if ord(character) < 32 or 127 <= ord(character) < 160}


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_control_characters_of_errors_are_shown(protocol):
    """Neither an error's document nor a refusal sends any, and each stays on one line."""
    name = "anthropic:m" if protocol.name == "messages" else "openai:m"
    name = "openai:davinci-002" if protocol.name == "completions" else name
    said = f"no\n{CLIPBOARD}\x9b2J\rfake"
    with FakeServer() as server:
        variables = {**openai(server), "ANTHROPIC_API_KEY": "key", "ANTHROPIC_BASE_URL": server.url}
        server.reply(Reply.json(protocol.error_body(400, said), status=400), Reply([protocol.error_frame(said)]))
        told = [run("-m", name, "hi", **variables).stderr for _ in range(2)]
    for line in told:
        assert line.startswith("rxllm: ")
        assert "no \\u001b]52;c;ZXZpbA==\\u0007\\u009b2J" in line
        assert line[:-1].isprintable()


@pytest.mark.parametrize(
    ("finish", "told", "returned"),
    [
        ("content_filter", "rxllm: the answer is cut short: the provider's content filter stopped it.\n", 0),
        ("length", "rxllm: the answer is cut short: the limit of tokens is reached.\n", 0),
        ("stop", "", 0),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_answer_that_is_not_whole_is_told(server, finish, told, returned, form):
    """Standard error says why the answer ended before its end."""
    server.reply(Reply(CHAT.stream(["Hel"], finish=finish)))
    done = run("hi", *form, **openai(server))
    assert (told, returned) == (done.stderr, done.returncode)
    assert "Hel" in done.stdout


def test_a_limit_that_was_asked_for_is_not_told(server):
    """With --max-tokens, an answer of that length is what was asked for."""
    server.reply(Reply(CHAT.stream(["Hel"], finish="length")))
    assert "" == run("hi", "--max-tokens", "1", **openai(server)).stderr


def test_an_answer_that_the_provider_broke_off_fails(capsys, monkeypatch):
    """The finish reason error ends with 1, after the text that came; the provider's own word is told."""

    class Breaks(rxllm.LLM):
        async def chunks(self, request):
            yield rxllm.Chunk("Hel")
            yield rxllm.Chunk(finish_reason="error", raw_finish_reason="abort\x1b")

    monkeypatch.setattr(cli, "_model", lambda name: Breaks())
    monkeypatch.setattr(sys, "stdin", None)
    assert 1 == cli.main(["hi"])
    assert ("Hel\n", "rxllm: the answer is not whole: the provider failed (abort\\u001b).\n") == capsys.readouterr()


def test_new_beginning_takes_a_new_line(capsys):
    """Printed text can't be taken back, so an answer that begins anew does it on a line of its own, and says so."""
    screen = cli._Screen(as_json=False)
    for chunk in (rxllm.Chunk("Hel"), rxllm.Chunk("Good", reset=True), rxllm.Chunk("bye")):
        screen.show(chunk)
    screen.end()
    assert capsys.readouterr() == ("Hel\nGoodbye\n", "rxllm: the answer begins anew.\n")


def test_program_may_call_it():
    """`main` is a function: it writes to whatever stdout is, and returns the exit code."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.main(["-m", "embedded", "--seed", "1", "hi"]) == 0
    assert printed.getvalue() == run("-m", "embedded", "--seed", "1", "hi").stdout


def test_version():
    """--version tells the package's."""
    assert run("--version").stdout == f"rxllm {rxllm.__version__}\n"


# ── mistakes and failures ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["-m", "foo:bar", "hi"], "openai"),
        (["-m", "opnai:gpt-5-mini", "hi"], "openai:gpt-5-mini"),
        (["-m", "nope", "hi"], "anthropic, embedded, openai.\n"),
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
def test_mistake_is_told_in_one_line(arguments, hint):
    """A mistake in the call ends with 2 and one line on stderr that names what to change; nothing is printed."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("rxllm: ")
    assert hint in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8:surrogateescape"])
@pytest.mark.parametrize("arguments", [(), ("Summarise:",), ("Summarise:", "-")])
def test_undecodable_stdin_is_a_mistake(arguments, encoding):
    """Bytes that are not text end with 2 and a sentence, also in locales in which Python lets them pass."""
    variables = environment(PYTHONIOENCODING=encoding)
    done = subprocess.run(
        [*COMMAND, "-m", "embedded", *arguments], input=b"caf\xff", env=variables, capture_output=True, check=False
    )
    assert (2, b"") == (done.returncode, done.stdout)
    assert (
        b"rxllm: Standard input is not text in utf-8: it holds the byte 0xff. Convert it first, for example with "
        b"iconv.\n"
    ) == done.stderr


@pytest.mark.skipif(os.name != "posix", reason="elsewhere arguments are always text")
@pytest.mark.parametrize("arguments", [[b"caf\xff"], [b"hi", b"--system", b"\xff"], [b"--", b"\xff"]])
def test_undecodable_argument_is_a_mistake(arguments):
    """An argument that is not text ends with 2 and a sentence that names it; nothing is sent."""
    done = subprocess.run(
        [*COMMAND, "-m", "embedded", *arguments], env=environment(), capture_output=True, stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    assert (2, b"") == (done.returncode, done.stdout)
    assert b"\\udcff' is not text in utf-8.\n" in done.stderr
    assert 1 == done.stderr.count(b"\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_terminal_without_prompt_is_told():
    """At a terminal, no prompt is a mistake and not a wait for one."""
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(COMMAND, stdin=theirs, env=environment(), capture_output=True, timeout=30, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"no prompt" in done.stderr


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_refused_request_fails(server, status):
    """What the server refuses ends with 1 and its reason in one line on stderr, without the key."""
    soon = {"retry-after-ms": "1"}  # what may pass is asked for again
    server.reply(Reply.json(CHAT.error_body(status, "It went\nwrong"), status=status, headers=soon))
    done = run("hi", **openai(server))
    assert (done.returncode, done.stdout) == (1, "")
    assert "It went wrong" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "a-secret-key" not in done.stderr


def test_no_server_fails():
    """Without a server the command ends with 1 and says where it looked."""
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
    """The text that came stays, its line is ended, and one line on stderr says what happened."""
    server.reply(Reply([*UNTIL_HEL, *ending]))
    done = run("hi", **openai(server))
    assert (done.returncode, done.stdout) == (1, "Hel\n")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


# ── who leaves ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_ctrl_c_in_the_middle(server, start):
    """Ctrl-C ends with 130 without a traceback, keeps the text and closes the request."""
    server.reply(Reply([*UNTIL_HEL, End.HANG]))
    process = start("hi", **openai(server))
    assert process.stdout.read(3) == b"Hel"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=10)
    assert (process.returncode, rest, errors) == (130, b"\n", b"")
    server.exchange().wait_closed()
    assert server.exchange().aborted


def test_ctrl_c_before_the_answer(server, start):
    """Ctrl-C while the server is silent does the same."""
    server.reply(Reply([End.HANG]))
    process = start("hi", **openai(server))
    server.exchange().arrived.wait(20)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == (b"", b"")
    assert process.returncode == 130
    server.exchange().wait_closed()


def test_closed_pipe_is_no_error(server, start):
    """A reader that has enough, as head has, ends the command with 0, in silence, and closes the request."""
    server.reply(Reply([*UNTIL_HEL, Endless(HEL_LO[2])]))
    process = start("hi", **openai(server))
    assert process.stdout.read(3) == b"Hel"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=10) == 0
    server.exchange().wait_closed()
    assert server.exchange().aborted


@pytest.mark.skipif(not hasattr(select, "poll"), reason="can't look at a pipe without writing to it")
def test_closed_pipe_is_seen_while_the_model_is_silent(server, start):
    """Nothing is written that would tell; the request is closed all the same."""
    server.reply(Reply([End.HANG]))
    process = start("hi", **openai(server))
    server.exchange().arrived.wait(20)
    process.stdout.close()
    assert b"" == process.stderr.read()
    assert 0 == process.wait(timeout=10)
    server.exchange().wait_closed()
    assert server.exchange().aborted


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes descriptors")
@pytest.mark.parametrize(
    ("closed", "returned", "told"), [("1>&-", 1, b"rxllm: standard output is closed.\n"), ("2>&-", 0, b"")]
)
def test_closed_outputs(closed, returned, told):
    """What belongs on standard error never goes to standard output, nor is anything lost in silence."""
    command = f'"$@" --max-tokens 3 --seed 1 hi {closed}'
    whole = ["/bin/sh", "-c", command, "sh", *COMMAND]
    done = subprocess.run(whole, env=environment(), capture_output=True, check=False)
    assert (returned, returned == 0) == (done.returncode, done.stdout != b"")
    assert told == done.stderr.removeprefix(NEWS.encode())
    assert b"rxllm:" not in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_is_a_failure():
    """What can't be written is a failure, told in one line."""
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
