"""Every command's reference, made of its parser when the handbook is built: it cannot go stale."""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser, HelpFormatter
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

CONSOLE = "messages"
"""Options that all commands have: the page has them once."""


class Commands(Directive):
    """`{commands}`: a section for each command, in the order of `napari-msp --help`."""

    def run(self) -> list[nodes.Node]:
        """Give the sections."""
        from napari_msp.cli import COMMANDS, build_parser

        parser = build_parser()
        return [_section(name, _parser_of(parser, name)) for name in COMMANDS]


class Terms(Directive):
    """`{terms}`: the words that tooltips explain, as the window explains them."""

    def run(self) -> list[nodes.Node]:
        """Give a list of terms and meanings."""
        from napari_msp.ui.glossary import TERMS

        entries = sorted(TERMS.items(), key=lambda entry: entry[0].lower())
        return [_definitions((nodes.Text(term), meaning) for term, meaning in entries)]


def _parser_of(parser: ArgumentParser, name: str) -> ArgumentParser:
    (commands,) = (each for each in parser._actions if each.dest == "command")
    assert isinstance(commands.choices, dict)
    found = commands.choices[name]
    assert isinstance(found, ArgumentParser)
    return found


def _section(name: str, parser: ArgumentParser) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(f"command {name}")], names=[f"command-{name}"])
    section += nodes.title("", "", nodes.literal("", name))
    section += nodes.paragraph("", parser.description or "")
    example = (parser.epilog or "").removeprefix("example:")
    lines = "\n".join(line.strip() for line in example.strip().splitlines())
    section += nodes.literal_block(lines, lines, language="console")
    for group in parser._action_groups:
        if group.title == CONSOLE:
            continue
        actions = [each for each in group._group_actions if each.help != SUPPRESS]
        actions = [each for each in actions if each.dest != "help"]
        if actions:
            section += nodes.rubric("", (group.title or "").capitalize())
            section += _definitions((_called(each), _meaning(each, parser)) for each in actions)
    return section


def _definitions(entries: Any) -> nodes.definition_list:
    found = nodes.definition_list()
    for term, meaning in entries:
        item = nodes.definition_list_item("", nodes.term("", "", term))
        item += nodes.definition("", nodes.paragraph("", meaning))
        found += item
    return found


def _called(action: Action) -> nodes.literal:
    """Name an option, or an argument, with what follows it."""
    value = "" if action.nargs == 0 else _value(action)
    if not action.option_strings:
        return nodes.literal("", value)
    names = ", ".join(each for each in action.option_strings if "_" not in each)
    return nodes.literal("", f"{names} {value}".strip())


def _value(action: Action) -> str:
    if action.metavar is None and action.choices:
        text = "|".join(map(str, action.choices))
    else:
        text = str(action.metavar or action.dest.upper())
    return f"{text} …" if action.nargs in ("+", "*") else text


def _meaning(action: Action, parser: ArgumentParser) -> str:
    text = HelpFormatter(parser.prog)._expand_help(action) if action.help else ""
    if action.required and action.option_strings:
        text = f"{text} Required."
    return text


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_directive("commands", Commands)
    app.add_directive("terms", Terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
