"""What a user reads can be translated: `_("literal")` in the scene layers, plain strings in the .ui files."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*sorted(ROOT.glob("DiffUSRender/DiffUSLib/**/*.py")), *sorted(ROOT.glob("DiffUS*/DiffUS*.py"))]
PANELS = sorted(ROOT.glob("DiffUS*/Resources/UI/*.ui"))
# Calls whose first argument is shown, and keyword arguments that are, whatever the call.
SHOWN = {"setText", "setToolTip", "setStatusTip", "setWindowTitle", "setTitle", "setLabelText", "setPlaceholderText"}
SHOWN |= {"showStatus", "onStatus", "showStatusMessage", "errorDisplay", "warningDisplay", "infoDisplay"}
SHOWN |= {"confirmOkCancelDisplay", "confirmYesNoDisplay", "RenderError", "ConfirmationNeeded", "SetDescription"}
SHOWN |= {"SetTitle", "SetXAxisTitle", "SetYAxisTitle", "GenerateUniqueName", "addItem", "abort", "delayDisplay"}
SHOWN_KEYWORDS = {"labelText", "windowTitle", "toolTip"}
SHOWN_PROPERTIES = {"text", "title", "toolTip", "windowTitle", "statusTip", "whatsThis", "placeholderText", "suffix"}
# Sentences that no user reads: logs, style sheets, and what other code looks up by these very words.
UNREAD_CALLS = {"exception", "warning", "error", "info", "debug", "compile", "setStyleSheet", "startswith", "connect"}
UNREAD = {
    "QLabel {{ background: {color}; color: white; font-weight: bold; padding: 4px; }}",
    "The DiffUS developers",
    "Progress %",
    "nothing overlaps",
    "finding the brain",
    " (*.mha *.mhd *.nrrd)",
}
WORDS = re.compile(r"[A-Za-z]{2,}[,:]? [A-Za-z({]")


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def is_translated(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "translate")


def text_of(node: ast.AST) -> str | None:
    """The literal text of a string, of an f-string with `{name}` for what stands in it, or None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (
            part.value.replace("{", "{{").replace("}", "}}")
            if isinstance(part, ast.Constant)
            else f"{{{ast.unparse(part.value)}}}"
            for part in node.values
        )
        return "".join(parts)
    return None


def shown_literals(node: ast.AST, assigned: dict[str, list[ast.AST]], seen: frozenset = frozenset()) -> list[str]:
    """Untranslated literals with a letter that an expression may evaluate to; local names are followed."""

    def within(*nodes):
        return [text for child in nodes for text in shown_literals(child, assigned, seen)]

    text = text_of(node)
    if text is not None:
        return [text] if re.search(r"[A-Za-z]", re.sub(r"\{[^}]*\}", "", text)) else []
    if is_translated(node):
        return []
    if isinstance(node, ast.BinOp):
        return within(node.left, node.right)
    if isinstance(node, ast.IfExp):
        return within(node.body, node.orelse)
    if isinstance(node, ast.BoolOp):
        return within(*node.values)
    if isinstance(node, (ast.List, ast.Tuple)):
        return within(*node.elts)
    if isinstance(node, (ast.ListComp, ast.GeneratorExp)):
        return within(node.elt)
    if isinstance(node, ast.Dict):
        return within(*node.values)
    if isinstance(node, ast.Subscript):
        return within(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "get"):
        return within(node.func.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        return within(*node.args)
    if isinstance(node, ast.Name) and node.id in assigned and node.id not in seen:
        return [t for value in assigned[node.id] for t in shown_literals(value, assigned, seen | {node.id})]
    return []


def assignments(scope: ast.AST) -> dict[str, list[ast.AST]]:
    """What is assigned to every plain name within a function (or a module)."""
    found: dict[str, list[ast.AST]] = {}
    for node in ast.walk(scope):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, []).append(node.value)
    return found


def untranslated(source: str) -> list[str]:
    """What is wrong in a file, one line each."""
    tree = ast.parse(source)
    wrong = []
    scopes = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for scope in scopes:
        assigned = assignments(scope)
        for call in (node for node in ast.walk(scope) if isinstance(node, ast.Call)):
            shown = [word.value for word in call.keywords if word.arg in SHOWN_KEYWORDS]
            shown += call.args[:1] if name_of(call) in SHOWN else []
            wrong += [f"{call.lineno}: shown untranslated: {t!r}" for s in shown for t in shown_literals(s, assigned)]
        if scope.name == "label":
            for node in ast.walk(scope):
                if isinstance(node, ast.Return) and node.value is not None:
                    wrong += [f"{node.lineno}: label: {t!r}" for t in shown_literals(node.value, assigned)]
    for call in (node for node in ast.walk(tree) if is_translated(node)):
        if ast.unparse(call) == "translate(sentence.context, template)":  # of an engine's sentence: see below
            continue
        if not all(isinstance(a, ast.Constant) and isinstance(a.value, str) for a in call.args) or call.keywords:
            wrong.append(f"{call.lineno}: only a literal can be looked up: {ast.unparse(call)}")
    return sorted(set(wrong + sentences(tree)))


def sentences(tree: ast.AST) -> list[str]:
    """Literals of several words outside of `_()`, docstrings and what only programs read."""
    unread = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if is_translated(node) or (isinstance(node, ast.Call) and name_of(node) in UNREAD_CALLS):
            unread |= {id(child) for child in ast.walk(node)}
        if isinstance(node, ast.JoinedStr):  # judged as a whole
            unread |= {id(part) for part in node.values}
        if isinstance(node, (ast.AnnAssign, ast.arg)) and node.annotation is not None:
            unread |= {id(child) for child in ast.walk(node.annotation)}
    found = []
    for node in ast.walk(tree):
        text = text_of(node)
        if text is not None and id(node) not in unread and text not in UNREAD and WORDS.search(text):
            found.append(f"{node.lineno}: a sentence without _(): {text!r}")
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_what_is_shown_can_be_translated(file):
    wrong = untranslated(file.read_text(encoding="utf-8"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("panel", PANELS, ids=lambda file: file.name)
def test_the_strings_of_a_panel_are_translatable(panel):
    count = 0
    for element in ElementTree.parse(panel).iter("property"):
        string = element.find("string")
        if element.get("name") in SHOWN_PROPERTIES and string is not None and string.text:
            assert string.get("notr") != "true", f"{element.get('name')}: {string.text}"
            count += 1
    assert count > 20


def test_these_rules_catch_what_they_forbid():
    for bad in (
        'def f(self):\n    self.ui.label.setText("Ready")',
        'def f(self):\n    text = "Ready" if self.ok else _("Busy")\n    self.ui.label.setText(text)',
        'def f(n):\n    raise RenderError(f"{n} frames")',
        'def f(n):\n    raise RenderError("{n} frames".format(n=n))',
        "def f(name):\n    return _(name)",
        'def f(n):\n    return _(f"{n} frames")',
        'def f():\n    return "There is no probe."',
        'def label(self):\n    return {A.B: "Convex"}[self]',
        'def f():\n    slicer.util.createProgressDialog(labelText="Loading")',
    ):
        assert untranslated(bad), bad
    for good in (
        'def f(n):\n    raise RenderError(_("{n} frames").format(n=n))',
        'def f(self):\n    """Sets the text."""\n    self.ui.label.setText("" if self.ok else _("Busy"))',
        'def f(self):\n    self.ui.label.setText(str(error) or "%")',
        'def f():\n    logging.exception("DiffUS live rendering")',
    ):
        assert not untranslated(good), good


ENGINE = [
    file
    for file in sorted(ROOT.glob("DiffUSRender/diffus/**/*.py"))
    if not {"cli", "studies"} & set(file.parts) and file.name != "errors.py"
]


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.relative_to(ROOT / "DiffUSRender").as_posix())
def test_the_engines_sentences_can_be_translated(path):
    """Each is `_("literal")`, or a name for one: an f-string could never be looked up."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and name_of(call) in ("InputError", "Sentence"):
            given = call.args[0]
            assert is_translated(given) or isinstance(given, (ast.Name, ast.Attribute)), f"{path.name}:{call.lineno}"
            if is_translated(given):
                names = set(re.findall(r"(?<!{){(\w+)", given.args[0].value))
                assert names <= {keyword.arg for keyword in call.keywords}, f"{path.name}:{call.lineno}"
