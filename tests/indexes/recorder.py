"""Notes the shape of every query that this process sends: what of it decides which index can serve it.

Imports nothing of ours, since it also works in processes that know neither `tests` nor yet `oncetask`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

__all__ = ["FOLDER", "record_to", "shape_of", "shapes_in"]

FOLDER = "SENT_QUERIES"
"""The variable that names the folder in which each process writes a file of its own."""

_RPC = "oncetask.store.firestore.rpc"
_WITHOUT_INFLUENCE = frozenset({"select", "from_", "where", "order_by", "start_at", "end_at", "offset", "limit"})
_open, _write, _close = os.open, os.write, os.close  # before blockbuster watches them: noting is not oncetask's doing


def record_to(folder: str) -> None:
    """Note, from now on, each new shape in a file of this folder; nothing is lost where the process is killed."""
    seen: set[str] = set()

    def note(shape: dict[str, Any]) -> None:
        text = json.dumps(shape, sort_keys=True)
        if text in seen:
            return
        seen.add(text)
        line = json.dumps({"shape": shape, "test": os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]})
        file = _open(f"{folder}/{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _write(file, f"{line}\n".encode())
        finally:
            _close(file)

    if (rpc := sys.modules.get(_RPC)) is not None:
        _listen_in(rpc, note)
    else:
        sys.meta_path.insert(0, _OnImport(note))


def shapes_in(request: Any) -> Iterator[dict[str, Any]]:
    """Give the shapes of the queries that a request carries: of any RPC, as a raw protobuf message."""
    fields = request.DESCRIPTOR.fields_by_name
    if "structured_query" in fields and request.HasField("structured_query"):
        yield shape_of(request.structured_query)
    if "structured_aggregation_query" in fields:
        aggregated = request.structured_aggregation_query
        kinds = sorted({one.WhichOneof("operator") for one in aggregated.aggregations})
        yield {**shape_of(aggregated.structured_query), "aggregations": kinds}
    if "add_target" in fields and request.add_target.HasField("query"):
        yield shape_of(request.add_target.query.structured_query)


def shape_of(query: Any) -> dict[str, Any]:
    """Give what of a structured query decides about indexes: no values, no limits, no cursors, no projection."""
    (source,) = query.from_
    return {
        "collection": source.collection_id,
        "group": source.all_descendants,
        "where": _filter(query.where) if query.HasField("where") else None,
        "order": [[one.field.field_path, _name(one, "direction")] for one in query.order_by],
        "aggregations": [],
        "unknown": [one.name for one, _ in query.ListFields() if one.name not in _WITHOUT_INFLUENCE],
    }


def _filter(where: Any) -> Any:
    which = where.WhichOneof("filter_type")
    if which == "composite_filter":
        parts = {json.dumps(_filter(one)) for one in where.composite_filter.filters}
        return {_name(where.composite_filter, "op"): [json.loads(one) for one in sorted(parts)]}
    condition = where.unary_filter if which == "unary_filter" else where.field_filter
    return [condition.field.field_path, _name(condition, "op")]


def _name(message: Any, field: str) -> str:
    described = message.DESCRIPTOR.fields_by_name[field]
    name: str = described.enum_type.values_by_number[getattr(message, field)].name
    return name


class _OnImport(MetaPathFinder):
    """Listens in as soon as the module is imported through which all queries go."""

    def __init__(self, note: Callable[[dict[str, Any]], None]) -> None:
        self._note = note

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find that one module, once."""
        if fullname != _RPC:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                _listen_in(module, self._note)

            loader.exec_module = exec_module
        return spec


def _listen_in(rpc: Any, note: Callable[[dict[str, Any]], None]) -> None:
    """Look at every request at the moment in which it is turned into bytes, whatever RPC it is for."""
    make_stub = rpc._stub

    def stub(kind: Callable[..., Any], method: str, response: Any) -> Any:
        def made(path: str, *, request_serializer: Callable[[Any], bytes], **rest: Any) -> Any:
            def serialise(request: Any) -> bytes:
                for shape in shapes_in(request):
                    note(shape)
                return request_serializer(request)

            return kind(path, request_serializer=serialise, **rest)

        return make_stub(made, method, response)

    rpc._stub = stub
