"""What a student is told, what it loses by, and that it learns it."""

import keras
import numpy as np
import pytest

from edgeml import distillation, train

L = keras.layers


def probabilities(rows, seed):
    return np.random.default_rng(seed).dirichlet(np.ones(3), rows).astype("float32")


def softened(p, temperature):
    powers = p ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("temperature", "hard"), [(1.0, 0.0), (2.0, 0.3), (4.0, 1.0)])
def test_the_loss_is_hintons(temperature, hard):
    y, q, p = np.eye(3, dtype="float32")[[0, 2, 1, 1]], probabilities(4, 0), probabilities(4, 1)
    found = np.asarray(distillation.loss_of(temperature, hard)(np.concatenate([y, q], axis=1), p))
    soft = -(softened(q, temperature) * np.log(softened(p, temperature))).sum(axis=1)
    expected = hard * -(y * np.log(p)).sum(axis=1) + (1 - hard) * temperature**2 * soft
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def student(width, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((2,)), L.Dense(width, "relu"), L.Dense(3), L.Softmax()])


@pytest.mark.parametrize("balanced", [False, True])
def test_a_student_learns_what_its_teacher_says_and_is_measured_by_the_truth(balanced):
    """The labels of train are noise: what the student knows of the truth it has from the teacher."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (900, 2)).astype("float32")
    truth = np.digitize(x[:, 0] + x[:, 1], [-0.6, 0.6])
    teacher = student(32, 1)
    train.compile_for(teacher, "adam", 0.01)
    train.fit(teacher, (x, truth), (x, truth), epochs=15, batch_size=32, seed=0, num_classes=3)
    model = student(16, 2)
    targets = distillation.targets_of(teacher)
    train.compile_for(model, "adam", 0.01, loss=distillation.loss_of(2.0, 0.0), balanced=balanced)
    noise = rng.integers(0, 3, 600)
    history = train.fit(
        model,
        (x[:600], noise),
        (x[600:], truth[600:]),
        epochs=15,
        batch_size=32,
        seed=0,
        num_classes=3,
        targets=targets,
    )
    right = np.mean(model.predict(x[600:], verbose=0).argmax(axis=1) == truth[600:])
    assert right > 0.85
    assert history[-1]["val_accuracy"] == pytest.approx(right, abs=1e-6)
    assert history[-1]["accuracy"] < 0.5
    assert ("val_balanced_accuracy" in history[-1]) is balanced
    assert train.evaluate(model, (x[600:], truth[600:]), 3, targets)["val_loss"] == pytest.approx(
        history[-1]["val_loss"], rel=1e-4
    )


def test_the_teacher_sees_the_augmented_batch():
    seen = []

    class Teacher:
        def predict_on_batch(self, x):
            seen.append(x)
            return np.full((len(x), 3), 1 / 3)

    batch = np.ones((4, 2), "uint8")
    told = distillation.targets_of(Teacher())(batch, np.eye(3, dtype="float32")[[0, 1, 2, 0]])
    assert told.shape == (4, 6)
    assert seen[0].dtype == np.float32
    model = student(4, 0)
    train.compile_for(model, "adam", 0.01, loss=distillation.loss_of(1.0, 0.5))
    data = np.zeros((8, 2), "float32"), np.zeros(8, np.int64)
    seen.clear()
    train.fit(
        model, data, data, epochs=1, batch_size=8, seed=0, num_classes=3,
        augment=lambda x: x + 5, targets=distillation.targets_of(Teacher()),
    )  # fmt: skip
    assert any((x == 5).all() for x in seen)
