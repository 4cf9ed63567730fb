"""What messages tell their reader to set is there: the flag in the command line's manual, the field in the public headers."""
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = re.findall(r'return flag \? "(.+?)" : "(.+?)";', (ROOT / "src/core/setting.cpp").read_text())


def test_every_setting_has_its_names():
    settings = re.search(r"enum class Setting \{(.*?)\};", (ROOT / "src/core/setting.h").read_text(), re.S)[1]
    assert len(NAMES) == len(re.findall(r"^\s+(\w+),", settings, re.M)) > 2


@pytest.mark.parametrize("flag,field", NAMES)
def test_it_is_there(flag, field):
    manual = (ROOT / "docs/cli.md").read_text() + (ROOT / "src/cli/chat.cpp").read_text()
    assert re.search(rf"(?<!\S)[`\"]?{re.escape(flag.split()[0])}\b", manual), flag
    owner, member = field.split("::")
    headers = "\n".join(p.read_text() for p in sorted((ROOT / "include/fathom").glob("*.h")))
    body = re.search(rf"^(?:struct|class FATHOM_API) {owner} (?:final )?{{(.*?)^}};", headers, re.S | re.M)
    assert body and re.search(rf"\b{member}\b", body[1]), field


def test_no_room_of_the_library_names_a_flag_of_the_engine_itself():
    for room in ("api", "infer", "kernels", "model", "routing"):
        for path in sorted((ROOT / "src" / room).glob("*.cpp")):
            assert not re.search(r'"[^"\n]*--(?:kv|max|prefix)-[a-z]', path.read_text()), path
