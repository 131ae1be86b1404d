"""Does an installed fakeface work? Run with the environment's own Python in an empty folder:

    python -P /path/to/tests/check_wheel.py
    python -P /path/to/tests/check_wheel.py --asks-for    # prints the wheel's requirements, a line each

A drawn face gets a word, the self-check finds nothing, a detector is exported, two folders are looked through, the
page answers to its address and to nobody else. Needs the extra `checker`. Ends
with 0, or with a sentence that says what did not work.
"""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from importlib.metadata import requires
from pathlib import Path

PATIENCE = 120  # seconds, for a command and for an answer
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32,}")
COMMAND = [sys.executable, "-P", "-m", "fakeface"]
WORDS = ("real", "fake", "unsure")


def refuse(what: str, found: object) -> None:
    sys.exit(f"{what}: {found}")


def asked_for() -> list[str]:
    "What the installed wheel requires, with the extra `checker`."
    found = []
    for text in requires("fakeface") or ():
        requirement, _, marker = text.partition(";")
        if not marker or re.search(r"""extra == ["']checker["']""", marker):
            found.append(requirement.strip())
    return found


def check_place() -> None:
    "The package comes from the environment, with what travels beside its modules."
    import fakeface

    folder = Path(fakeface.__file__).parent
    if not folder.is_relative_to(sys.prefix):
        refuse("This is not the installed package", folder)
    for name in ("py.typed", "pages/check.ipynb", "bundles/README.md"):
        if not (folder / name).is_file():
            refuse("The wheel lacks", name)


def check_command() -> None:
    "`fakeface check` says one of its words of a drawn face."
    from fakeface.testing.images import portrait

    portrait(512, 640).save("drawn.png")
    run = subprocess.run(
        [*COMMAND, "check", "drawn.png", "--framing", "centre", "--json", "-", "--quiet"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if run.returncode:
        refuse(f"fakeface check ended with {run.returncode}", run.stderr)
    row = json.loads(run.stdout)
    if row["name"] != "drawn.png" or row["label"] not in WORDS or not 0 <= row["p_fake"] <= 1:
        refuse("fakeface check gave a row that is none", row)


def check_doctor() -> None:
    "`fakeface doctor` finds nothing wrong: the shipped detector's scores are those that it was made with."
    run = subprocess.run([*COMMAND, "doctor"], capture_output=True, text=True, timeout=PATIENCE)
    if run.returncode:
        refuse(f"fakeface doctor ended with {run.returncode}", run.stdout + run.stderr)


def check_export() -> None:
    "`fakeface export` writes an ONNX file: a detector that one has trained needs it, and so does each training."
    command = [*COMMAND, "export", "fakeface-lite0", "--out", "exported"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if run.returncode or not Path("exported/model.onnx").is_file():
        refuse(f"fakeface export ended with {run.returncode}", run.stdout + run.stderr)


def check_audit() -> None:
    "`fakeface audit` looks through two folders as `prepare` would: near-copies, groups, headers."
    from fakeface.testing.images import portrait

    for number, folder in enumerate(("real", "fake")):
        Path("toy", folder).mkdir(parents=True)
        for i in range(12):
            portrait(200 + 10 * i, 250 + 7 * number).save(f"toy/{folder}/{i}.png")
    run = subprocess.run([*COMMAND, "audit", "toy"], capture_output=True, text=True, timeout=PATIENCE)
    if run.returncode not in (0, 1) or "24 images" not in run.stdout:
        refuse(f"fakeface audit ended with {run.returncode}", run.stdout + run.stderr)


def check_page() -> None:
    "`fakeface serve` gives the page to whoever has the printed address, and 403 to others."
    server = subprocess.Popen([*COMMAND, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        line = server.stdout.readline()
        address = ADDRESS.search(line)
        if not address:
            refuse("fakeface serve printed no address", line)
            return
        try:
            urllib.request.urlopen(address[0].split("?")[0], timeout=PATIENCE)
            refuse("fakeface serve answered without the token", address[0])
        except urllib.error.HTTPError as error:
            if error.code != 403:
                refuse("Without the token fakeface serve should answer 403", error.code)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        page = opener.open(address[0], timeout=PATIENCE).read().decode()
        if "fakeface" not in page:
            refuse("The page does not name the project", page[:500])
    finally:
        server.terminate()
        server.wait(PATIENCE)


if __name__ == "__main__":
    if sys.argv[1:] == ["--asks-for"]:
        print("\n".join(asked_for()))
        sys.exit()
    check_place()
    check_command()
    check_doctor()
    check_export()
    check_audit()
    check_page()
    print("installed, and works: check, doctor, export, audit, serve")
