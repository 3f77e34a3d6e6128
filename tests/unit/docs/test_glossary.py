"""docs/glossary.md: each word once, in order, in one or two sentences; other words lead to rows."""

from __future__ import annotations

import re

from tests.unit.docs.pages import MANUAL, PROSE, read, table

PAGE = "docs/glossary.md"


def words() -> dict[str, str]:
    return {row["Word"]: row["Meaning"] for row in table(PAGE, "Word")}


def test_each_word_has_one_row_in_alphabetical_order() -> None:
    listed = [row["Word"] for row in table(PAGE, "Word")]
    assert listed == sorted(set(listed), key=str.lower)


def test_a_meaning_is_one_or_two_sentences() -> None:
    for word, meaning in words().items():
        assert meaning.endswith("."), word
        assert len(re.findall(r"\.(?: |$)", meaning)) in (1, 2), word
        assert len(meaning) < 250, word


def test_words_in_italics_have_a_row() -> None:
    def known(word: str) -> bool:
        return word in words() or word.removesuffix("s") in words()

    for word, meaning in words().items():
        for other in re.findall(r"\*([^*]+)\*", meaning):
            assert known(other), f"{word} speaks of {other}"
            assert other.removesuffix("s") != word, f"{word} is explained by itself"


def test_whose_word_it_is_is_one_of_the_sources() -> None:
    sources = set(re.findall(r"\*(\w+)\*\s+for ", read(PAGE).split("\n| ")[0]))
    listed = {one for row in table(PAGE, "Word") for one in row["Whose word"].split(", ")}
    assert listed == {"—", *sources}


def test_words_that_are_not_used_are_used_nowhere() -> None:
    wrong = [
        word.strip()
        for row in table(PAGE, "Not")
        for word in re.sub(r"\(.*?\)", "", row["Not"]).split(",")
        if "(" not in row["Not"]
    ]
    assert "rootlet" in wrong
    for path in [*PROSE, *MANUAL]:
        text = read(path) if path != PAGE else ""
        assert [word for word in wrong if re.search(rf"\b{re.escape(word)}\b", text)] == [], path
