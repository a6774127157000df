"""The picture of a learning curve; tests/training/test_loggers.py has those of real runs."""

from spacy_bertner.training.learning_curve import plot_learning_curve


def test_best_of_equal_scores_is_the_last(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("step,epoch,words,seconds,learn_rate,score,loss_ner,ents_f\n" + "".join(
        f"{step},0,9,1,0.001,{score},{loss},{score}\n"
        for step, score, loss in ((0, 0.0, 2.0), (5, 0.5, "nan"), (10, 0.5, 1.0), (15, 0.25, ""))
    ))  # fmt: skip
    assert plot_learning_curve(table).get_suptitle() == "Best: step 10, entity F1 50.0 %"
