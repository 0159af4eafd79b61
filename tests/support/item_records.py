"""Hypothesis strategies for records that may or may not be items of the inbox."""

from __future__ import annotations

from hypothesis import strategies as st

from learning.data.row_parser import COLUMN_NAMES

FIELD_NAMES = sorted(
    {name for names in COLUMN_NAMES.values() for aliases in names.values() for name in aliases}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
