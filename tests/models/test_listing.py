from mmgn.models.listing import aligned, first, span


def test_columns_are_as_wide_as_their_widest_text_and_no_line_ends_in_spaces():
    assert aligned([("name", "C"), ("backbone.gn1", "64"), ("fc", "")]) == [
        "name          C",
        "backbone.gn1  64",
        "fc",
    ]
    assert aligned(iter([])) == []


def test_the_first_of_many_names():
    assert first(["gn1"]) == "gn1"
    assert first(["gn1", "gn2", "gn3"]) == "gn1 and 2 more"


def test_the_span_of_values():
    assert span(iter([64, 16, 32])) == "16-64"
    assert span([8, 8]) == "8"
    assert span([]) == "-"
