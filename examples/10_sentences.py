"""`sentences` for a voice, `smooth` for the eye: pieces that are whole, and a rhythm that is even.

It runs on rxllm's background loop, since a script has none: `stream` reads from there.
"""

import rxllm

llm = rxllm.Embedded(seed=2, max_tokens=60)

voice = rxllm.pipe(llm, rxllm.sentences())
for sentence in voice.stream("Write me a song about the sea."):
    print("say:", repr(sentence))

# Chunks come in bursts; words leave evenly, each at most 0.2 seconds after it came.
typewriter = rxllm.pipe(llm, rxllm.words(), rxllm.smooth(0.2))
for word in typewriter.stream("Write me a song about rain."):
    print(word, end="", flush=True)
print()
