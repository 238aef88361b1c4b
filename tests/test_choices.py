"""What a template asks for is answered by a record as far as the template still has the answer, else by its default."""

from nncc.kernels.choices import Choices, GraphChoices, graph_task


def test_the_first_option_is_the_default():
    choices = Choices()
    assert choices("tile", [[6, 4], [8, 2]]) == [6, 4]
    assert choices.taken == {"tile": [6, 4]}
    assert choices.options == {"tile": [[6, 4], [8, 2]]}
    assert choices.decision("ab", "kernel", "conv2d").source == "default"


def test_a_given_answer_is_taken_where_it_is_an_option():
    choices = Choices({"tile": [8, 2]}, "record in team")
    assert choices("tile", [[6, 4], [8, 2]]) == [8, 2]
    decision = choices.decision("ab", "kernel", "conv2d")
    assert decision.source == "record in team"
    assert decision.tuned


def test_an_answer_that_is_no_option_any_more_is_refused_and_said_so():
    choices = Choices({"tile": [9, 9], "order": "rows"}, "record in team")
    assert choices("tile", [[6, 4], [8, 2]]) == [6, 4]
    decision = choices.decision("ab", "kernel", "conv2d")
    assert choices.refused == {"tile", "order"}
    assert decision.source == "default: order and tile of the record in team cannot be chosen any more"
    assert not decision.tuned


def test_an_answer_of_another_type_is_no_option():
    assert Choices({"unroll": True})("unroll", [4, 1]) == 4
    assert Choices({"unroll": "1"})("unroll", [4, 1]) == 4


def test_a_choice_of_the_graph_is_asked_for_once_and_known_by_its_text():
    asked = []

    def find(task):
        asked.append(task)
        return ({"lanes": 8}, "record") if task == graph_task("layout", "a b") else (None, "default")

    graph = GraphChoices(find)
    assert graph("layout", "a b")("lanes", [16, 8]) == 8
    assert graph("layout", "a b") is graph("layout", "a b")
    assert graph("algorithm", "a b")("algorithm", ["direct"]) == "direct"
    assert asked == [graph_task("layout", "a b"), graph_task("algorithm", "a b")]
    assert [(d.kind, dict(d.taken), d.source) for d in graph.decisions()] == [
        ("layout", {"lanes": 8}, "record"),
        ("algorithm", {"algorithm": "direct"}, "default"),
    ]
