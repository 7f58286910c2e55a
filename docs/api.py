"""Writes `docs/api.md`, the page of all public names, from the docstrings.

The code is read, not imported, so `make docs` takes a second. Public is what `__all__`
of a package names, of a class its methods that have a docstring.
"""

import ast
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"

# In the order in which a user meets them.
PACKAGES = [
    "models",
    "data",
    "text",
    "training",
    "sampling",
    "serving",
    "evaluation",
    "mesh",
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "decoding",
    "compiled",
    "weight_files",
    "cli",
]

HEAD = """\
# The public names

<!-- Written by `make docs` from the docstrings: change those. -->

Each with its signature and the first sentence of its docstring. Shapes, units, errors
and examples stand in the rest of it: the name leads to its file, and `help()` shows it.
What is not on this page may change without notice.

A `Tensor` is one of the backend in use, or a NumPy array. `**kwargs` of models, layers,
losses and metrics are those of Keras' own. What `from_preset` takes, such as
`"parti_3b"`, is in [presets.py](../keras_parti/presets.py) and printed by
`keras-parti presets`.
"""

WIDTH = 88


def load():
    """Returns the package, read by griffe."""
    return griffe.load(
        "keras_parti",
        search_paths=[str(ROOT)],
        docstring_parser="google",
        allow_inspection=False,
    )


def entries(module):
    """Returns a dict from public names of a module to what they name.

    A name of a package that loads its names lazily is looked up in its table; a public
    name that is a module stands for the names of that module.
    """
    homes = _literal(module, "_HOMES") or {}
    found = {}
    for name in sorted(homes or _literal(module, "__all__")):
        home = homes.get(name, "")
        if home is None:
            inner = entries(module[name])
            found |= {f"{name}.{each}": value for each, value in inner.items()}
        else:
            value = (module[home] if home else module)[name]
            found[name] = value.final_target if value.is_alias else value
    return found


def _literal(module, name):
    return ast.literal_eval(str(module[name].value)) if name in module.members else None


def methods(cls):
    """Returns a dict of the public methods of a class, without `ConfigModel`'s.

    Those of a base class that is not public itself are the class's.
    """
    found = {}
    for base in (cls, *cls.mro()):
        if not base.path.startswith("keras_parti."):
            continue
        if base.name == "ConfigModel" and base is not cls:
            continue
        for name, value in base.members.items():
            if value.is_function and value.docstring and not name.startswith("_"):
                found.setdefault(name, value)
    return found


def parameters(function, typed):
    """Returns the parameters of a function as they are written in its head."""
    parts = []
    for each in function.parameters:
        if each.name in ("self", "cls"):
            continue
        part, default = each.name, each.default
        if "variadic" in each.kind.value:
            parts.append(("**" if "keyword" in each.kind.value else "*") + part)
            continue
        if typed and each.annotation is not None:
            part += f": {_words(each.annotation)}"
        if default is not None:
            sign = " = " if typed and each.annotation is not None else "="
            part += sign + _constant(default, function).replace("'", '"')
        parts.append(part)
    return parts


def _constant(default, function):
    """A default value, where it is a named constant of ours, and else its words."""
    try:
        node = ast.parse(str(default), mode="eval").body
        keys, module = [], function.parent
        while not module.is_module:
            module = module.parent
        while isinstance(node, ast.Subscript):
            keys, node = [ast.literal_eval(node.slice), *keys], node.value
        for name in ast.unparse(node).split("."):
            module = module[name]
        value = ast.literal_eval(str(module.value))
        for key in keys:
            value = value[key]
        return repr(value)
    except (AttributeError, KeyError, ValueError):
        return str(default)


def _words(annotation):
    """An annotation without the quotation marks of a deferred one."""
    return str(annotation).strip("\"'")


def _returned(function):
    returns = getattr(function, "returns", None)
    return "" if returns is None or str(returns) == "None" else _words(returns)


def signature(name, value):
    """Returns a signature with types, on several lines where it is long."""
    if value.is_class and "__init__" not in value.all_members:
        if "NamedTuple" not in map(str, value.bases):
            bases = [b for b in map(str, value.bases) if not b.startswith("_")]
            return f"class {name}({', '.join(bases)})"
        fields = value.attributes.items()
        parts = [f"{each}: {_words(field.annotation)}" for each, field in fields]
    else:
        parts = parameters(value, typed=True)
    returned = _returned(value)
    end = f" -> {returned}" if returned else ""
    line = f"{name}({', '.join(parts)}){end}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n    " + ",\n    ".join(parts) + f",\n){end}"


def summary(value):
    """Returns the first paragraph of a docstring, on one line."""
    return " ".join(value.docstring.value.split("\n\n")[0].split())


def entry(name, value):
    """Returns the Markdown of a public class or function."""
    path = value.filepath.relative_to(ROOT)
    block = f"```py\n{signature(name, value)}\n```"
    parts = [f"### `{name}`", block, f"{summary(value)} [Source](../{path})"]
    if value.is_class:
        lines = []
        for each, method in methods(value).items():
            head = f"`.{each}({', '.join(parameters(method, typed=False))})`"
            returned = _returned(method)
            head += f" → `{returned}`" if returned else ""
            lines.append(f"- {head}: {summary(method)}")
        if any(base.name == "ConfigModel" for base in value.mro()):
            lines.append("- and the methods of [`ConfigModel`](#configmodel).")
        parts += ["\n".join(lines)] if lines else []
    return "\n\n".join(parts)


def page(package):
    """Returns the Markdown of the whole page."""
    found = {name: entries(package[name]) for name in PACKAGES}
    contents = [
        f"- [keras_parti.{name}](#keras_parti{name}): "
        + ", ".join(f"`{each}`" for each in values)
        for name, values in found.items()
    ]
    parts = [HEAD.strip(), "\n".join(contents)]
    for name, values in found.items():
        parts += [f"## keras_parti.{name}", summary(package[name])]
        parts += [entry(*each) for each in values.items()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(load()), encoding="utf-8")
