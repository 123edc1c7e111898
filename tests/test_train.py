"""Fitting one network: reproducible, by any optimizer, stopped when it diverges."""

import keras
import numpy as np
import pytest

from edgeml import train

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (96, 4)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


def fitted(optimizer="adam", rate=1e-2, seed=3, epochs=2, x=X, **options):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dropout(0.2), L.Dense(2, "softmax")])
    train.compile_for(
        model, optimizer, rate, **{k: options.pop(k) for k in ("cosine_steps", "balanced") if k in options}
    )
    history = train.fit(
        model, (x[:64], Y[:64]), (x[64:], Y[64:]), epochs=epochs, batch_size=16, seed=seed, num_classes=2, **options
    )
    return model, history


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    (a, first), (b, second), (c, _) = fitted(), fitted(), fitted(seed=4)
    assert first == second
    assert set(first[0]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for one, same, other in zip(a.get_weights(), b.get_weights(), c.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimizer_learns(optimizer):
    history = fitted(optimizer, epochs=8)[1]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["val_accuracy"] > 0.7


def test_cosine_ends_at_zero():
    model, _ = fitted(cosine_steps=train.steps(64, 16, 2))
    assert float(model.optimizer.learning_rate) < 1e-9


def test_steps_round_up():
    assert train.steps(65, 16, 3) == 15


def test_a_diverging_network_stops_without_a_word(capfd):
    seen = []
    history = fitted(epochs=5, rate=1e30, on_epoch=lambda epoch, metrics: seen.append(epoch))[1]
    assert len(history) == len(seen) == 1
    assert not np.isfinite(history[0]["val_loss"])
    assert capfd.readouterr() == ("", "")


def test_augmentation_sees_each_training_sample_once_an_epoch_and_no_other():
    seen = []

    def augment(batch):
        seen.append(batch.copy())
        return batch

    fitted(epochs=2, augment=augment)
    first, second = np.concatenate(seen[-8:-4]), np.concatenate(seen[-4:])  # before them Keras looks at two batches
    for epoch in (first, second):
        np.testing.assert_array_equal(np.sort(epoch, axis=0), np.sort(X[:64], axis=0))
    assert not np.array_equal(first, second)


def test_every_network_has_a_seed_of_its_own_that_keras_takes():
    seeds = [train.network_seed(s, t, finalist=f) for s in (0, 1, 2**31 - 2) for t in range(50) for f in (False, True)]
    assert len(set(seeds)) == len(seeds)
    for seed in seeds:
        keras.utils.set_random_seed(seed)  # NumPy refuses 2**32 and above


def test_a_step_is_traced_once():
    class Counting(keras.Sequential):
        traces = 0

        def train_step(self, *args, **kwargs):
            type(self).traces += 1
            return super().train_step(*args, **kwargs)

    model = Counting([keras.Input((4,)), L.Dense(8, "relu"), L.BatchNormalization(), L.Dense(2, "softmax")])
    train.compile_for(model, "adam", 1e-2, balanced=True)
    data = (X[:50], Y[:50])  # the last batch of an epoch is a smaller one
    train.fit(model, data, data, epochs=3, batch_size=16, seed=1, num_classes=2)
    assert Counting.traces == 1


def recall(model, x, y):
    found = model.predict(x, verbose=0).argmax(axis=1)
    return np.mean([np.mean(found[y == k] == k) for k in np.unique(y)])


def test_balanced_accuracy_is_the_mean_recall_of_the_whole_split():
    y = np.where(np.arange(96) < 80, 0, Y)  # held out: 16 of class 0, then 16 of which some are 1
    model, history = fitted(balanced=True, x=X, epochs=3)
    assert set(history[0]) == {
        "loss",
        "accuracy",
        "balanced_accuracy",
        "val_loss",
        "val_accuracy",
        "val_balanced_accuracy",
    }
    assert history[-1]["val_balanced_accuracy"] == pytest.approx(recall(model, X[64:], Y[64:]), abs=1e-6)
    found = train.evaluate(model, (np.tile(X, (8, 1)), np.tile(y, 8)), 2)  # more than one batch
    assert found["val_balanced_accuracy"] == pytest.approx(recall(model, X, y), abs=1e-6)
    assert found["val_accuracy"] != pytest.approx(found["val_balanced_accuracy"], abs=1e-3)
    only = train.evaluate(model, (X[:4], np.zeros(4, np.int64)), 2)  # a class that does not occur has no recall
    assert only["val_balanced_accuracy"] == pytest.approx(only["val_accuracy"])


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 7 + [1] * 2 + [3])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(train.balanced_weights(labels, 4), [*expected[:2], 0, expected[2]])


def test_class_weights_reach_the_loss_of_training_alone():
    zero = np.array([0.0, 1.0])  # class 0 counts nothing: everything becomes class 1
    model, _ = fitted(class_weights=zero, epochs=12, rate=3e-2)
    assert set(model.predict(X, verbose=0).argmax(axis=1)) == {1}
    plain, weighted = (fitted(epochs=1, rate=0.0, class_weights=w)[1][0] for w in (None, np.array([2.0, 2.0])))
    assert weighted["loss"] == pytest.approx(2 * plain["loss"], rel=1e-5)
    assert weighted["val_loss"] == pytest.approx(plain["val_loss"])


@pytest.mark.parametrize("keep_best", [False, True])
def test_early_stopping_keeps_the_best_epoch_if_asked(keep_best):
    weights = []

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            weights.append(self.model.get_weights())

    callbacks = [Note(), train.early_stopping("val_accuracy", 2, keep_best=keep_best)]
    model, history = fitted(epochs=40, callbacks=callbacks)
    best = int(np.argmax([metrics["val_accuracy"] for metrics in history]))
    assert len(history) == best + 3
    for kept, due in zip(model.get_weights(), weights[best if keep_best else -1], strict=True):
        np.testing.assert_array_equal(kept, due)


def test_a_plateau_lowers_the_rate():
    stuck, _ = fitted("sgd", epochs=4, rate=1e-30, callbacks=[train.plateau(1)])  # val_loss never falls
    assert float(stuck.optimizer.learning_rate) == pytest.approx(1e-29 * train.PLATEAU_FACTOR**3, rel=1e-4)


def test_the_seeds_of_a_finalist_differ_and_the_first_is_what_it_was():
    first, second = (train.network_seed(1, 7, finalist=True, number=n) for n in (1, 2))
    assert first == train.network_seed(1, 7, finalist=True)
    assert len({first, second, train.network_seed(1, 7), train.network_seed(1, 8, finalist=True)}) == 4
