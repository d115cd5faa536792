#!/usr/bin/env python3
"""Writes the example's data: transcribed commands of 24 made-up speakers, one file each."""
import os, random, sys

rooms = ["kitchen", "bedroom", "hall", "office"]
verbs = ["turn on", "turn off", "dim", "brighten"]
songs = ["some jazz", "the news", "my playlist", "a quiet song"]
directory = sys.argv[1]
os.makedirs(directory, exist_ok=True)
for speaker in range(24):
    r = random.Random(speaker)
    room, song, lines = r.choice(rooms), r.choice(songs), []
    for _ in range(30):
        lines.append(r.choice([
            f"{r.choice(verbs)} the {r.choice([room, room, r.choice(rooms)])} lights",
            f"play {r.choice([song, song, r.choice(songs)])}",
            f"set a timer for {r.choice(['five', 'ten', 'twenty'])} minutes",
            f"what is the weather {r.choice(['today', 'tomorrow'])}",
        ]))
    with open(os.path.join(directory, f"speaker-{speaker:02}.txt"), "w") as file:
        file.write("\n".join(lines) + "\n")
