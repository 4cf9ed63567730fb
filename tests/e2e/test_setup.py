"""scripts/setup where an earlier one was interrupted: nothing is installed, `python3 -m venv` and pip are stubs."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

PYTHON = """#!/bin/sh
[ "$1 $2" = "-m venv" ] || exec {python} "$@"
echo "$@" >>calls
for last; do :; done
case " $* " in *" --clear "*) rm -rf "$last" ;; esac
mkdir -p "$last/bin" "$last/lib/python3.11/site-packages/torch/lib"
touch "$last/lib/python3.11/site-packages/torch/lib/libtorch_cpu.so"
printf '#!/bin/sh\\necho pip "$@" >>calls\\n' >"$last/bin/pip"
chmod +x "$last/bin/pip"
"""


@pytest.fixture
def setup(tmp_path):
    here, stubs = tmp_path / "checkout", tmp_path / "stubs"
    shutil.copytree(ROOT / "scripts", here / "scripts")
    stubs.mkdir()
    for name, text in {"python3": PYTHON.format(python=sys.executable), "dpkg-query": "#!/bin/sh\necho install ok installed\n"}.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k != "TORCH_ROOT"} | {"PATH": f"{stubs}:{os.environ['PATH']}"}

    def call():
        (here / "calls").write_text("")
        done = subprocess.run([here / "scripts/setup"], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return [line for line in (here / "calls").read_text().splitlines() if line != "pip --version"]

    call.here = here
    return call


def test_an_interrupted_venv_is_made_again(setup):
    # What stands there until pip comes: a link to the interpreter.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", setup.here / ".venv"], check=True)
    assert (setup.here / ".venv/bin/python").exists() and not (setup.here / ".venv/bin/pip").exists()
    venv, pip = setup()
    assert venv == "-m venv --clear .venv"
    assert pip.startswith("pip install") and "torch==" in pip
    assert setup() == []


def test_an_interrupted_pip_goes_on_in_the_same_venv(setup):
    venv, pip = setup()
    assert venv.endswith(" .venv")
    (setup.here / ".venv/.fathom-setup").unlink()
    assert setup() == [pip]
