from learning.prompts.alpaca import format_prompt


def test_the_prompt_ends_where_the_response_begins() -> None:
    assert format_prompt("Add.", "1, 2").endswith(
        "### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n"
    )


def test_an_empty_input_and_the_word_noinput_mean_the_same() -> None:
    assert "### Input" not in format_prompt("Add.")
    assert (
        format_prompt("Add.", "<noinput>")
        == format_prompt("Add.", "  ")
        == format_prompt("Add.", "<NoInput> ")
    )


def test_braces_in_a_task_are_text() -> None:
    assert "{input}" in format_prompt("Explain {input}", "x")
