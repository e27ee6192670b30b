"""What workers write down about the samples they took."""

from ssd1b.training.journal import taken


def test_ids_on_both_sides_of_2_63_keep_every_bit_and_null_rows_are_left_out() -> None:
    ids = [2**64 - 3, 5, 2**63 + 1]
    assert taken({"real": [True, True, False], "epoch": [0, 0, 0], "sample_id": ids}) == {
        "epoch": [0, 0],
        "sample_id": ids[:2],
    }
