"""YAML that people write: a field given twice is an error, and errors say the line."""

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML itself lets the last of two equal keys win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for at, key in enumerate(keys):
            if any(key.value == earlier.value for earlier in keys[:at]):
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Plain data; ValueError with what is wrong and where, on one line."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ValueError(f"{error.problem}{f' in line {mark.line + 1}' if mark else ''}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from None
