"""Modules: against Rust's, against NumPy's arithmetic, and the rules of walking, naming, moving and saving them."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import bullet_core as bc
from bullet_core import nn, optim

KINDS = {
    "gpt2": {},
    "llama": {"positions": "rope", "norm": "rms", "feed_forward": "swiglu", "bias": False, "kv_heads": 2},
    "tied": {"tie_embeddings": True, "feed_forward": "relu"},
}


def small(**options):
    return bc.Transformer(**({"vocab": 37, "dim": 32, "layers": 2, "heads": 4, "max_seq": 16, "seed": 3} | options))


def tokens(rows=2, length=16, vocab=37, seed=0):
    return bc.array(np.random.default_rng(seed).integers(0, vocab, (rows, length)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_transformer_is_rusts_bit_for_bit(kind):
    model = small(**KINDS[kind])
    here = model(tokens()).detach().numpy()
    assert np.array_equal(here, model._core.logits(tokens()).numpy())
    names = [name for name, _ in model.named_parameters()]
    assert names == [name for name, _ in model._core.named_parameters()]
    assert ("head.weight" in names) == (kind != "tied")


@pytest.mark.parametrize("kind", KINDS)
def test_modules_have_rusts_first_values(kind):
    model = small(**KINDS[kind])
    before = {name: value.copy() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.requires_grad = False
        parameter.fill_(7)
        parameter.requires_grad = True
    model.reset_parameters(3)
    for name, value in model.state_dict().items():
        assert value.tolist() == before[name].tolist(), name


class Gate(nn.Module):
    def __init__(self, width):
        self.project = nn.Linear(width, width)
        self.scale = nn.Parameter([2.0])

    def forward(self, x):
        return x * bc.sigmoid(self.project(x)) * self.scale


def test_a_module_in_a_few_lines_trains():
    nn.seed(0)
    model = nn.Sequential(Gate(4), nn.Dropout(0.1), nn.Linear(4, 1))
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = x[:, :1] * 3 + 1
    opt = optim.AdamW(model, lr=3e-2)
    losses = []
    for _ in range(150):
        loss = ((model(bc.asarray(x)) - bc.asarray(y)) ** 2).mean()
        loss.backward()
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
    names = [name for name, _ in model.named_parameters()]
    assert names == ["0.scale", "0.project.weight", "0.project.bias", "2.weight", "2.bias"]


def test_parameters_are_walked_once_and_in_order():
    a, b = nn.Linear(2, 3), nn.Linear(2, 3)
    b.weight = a.weight
    both = nn.ModuleList([a, b])
    assert [n for n, _ in both.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert both.num_parameters() == 6 + 3 + 3
    assert len(both) == 2 and both[-1] is b and list(both[:1]) == [a]
    holder = nn.Module()
    holder.parts = [a, b]
    holder.note = [1, 2]
    assert isinstance(holder.parts, nn.ModuleList) and holder.note == [1, 2]
    assert set(holder.state_dict()) == {"parts.0.weight", "parts.0.bias", "parts.1.bias"}
    a.bias = None
    assert "0.bias" not in dict(both.named_parameters())
    with pytest.raises(TypeError, match="is a parameter"):
        a.weight = bc.ones((3, 2))
    del a.weight
    assert [n for n, _ in both.named_parameters()] == ["1.weight", "1.bias"]
    with pytest.raises(IndexError, match="out of bounds"):
        both[2]


def test_only_leaves_are_parameters():
    module = nn.Linear(2, 2)
    module.last = module(bc.ones((1, 2)))
    module.constant = bc.ones(3)
    assert [n for n, _ in module.named_parameters()] == ["weight", "bias"]


def test_state_that_does_not_fit_is_one_error():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.copy() for name, value in model.state_dict().items()}
    state = {name: value.numpy() * 2 for name, value in model.state_dict().items()}
    wrong = dict(state, **{"0.weight": np.ones((3, 3), "float32"), "5.weight": np.ones(1, "float32")})
    del wrong["1.bias"]
    with pytest.raises(ValueError, match="3 problems") as error:
        model.load_state_dict(wrong)
    for words in ("0.weight: found float32 (3, 3), expected float32 (3, 2)", "1.bias: missing", "5.weight: unexpected"):
        assert words in str(error.value)
    assert all(before[n].tolist() == v.tolist() for n, v in model.state_dict().items())
    model.load_state_dict(state)
    assert all((before[n] * 2).tolist() == v.tolist() for n, v in model.state_dict().items())


def test_moving_and_freezing_keep_the_objects():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    weight = model[0].weight
    model.to("float64")
    assert model[0].weight is weight and weight.dtype == bc.float64 and weight.requires_grad
    model[0].requires_grad_(False)
    model(bc.ones((1, 2), dtype="float64")).sum().backward()
    assert weight.grad is None and model[1].weight.grad is not None
    assert "0.weight" in model.state_dict()
    model.requires_grad_(True).zero_grad()
    assert weight.requires_grad and model[1].weight.grad is None


def test_copies_and_pickles():
    model = nn.Sequential(nn.Linear(2, 3), bc.tanh, nn.Linear(3, 1))
    x = bc.ones((1, 2))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(nn.Linear(2, 3)))):
        assert next(other.named_parameters())[0].endswith("weight")
    twin = copy.deepcopy(model)
    assert twin(x).tolist() == model(x).tolist()
    assert not twin[0].weight.requires_grad or twin[0].weight is not model[0].weight
    assert "Linear(weight=(3, 2), bias=(3,))" in repr(model)
    model = small(tie_embeddings=True)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.head.weight is other.tok_embedding.weight is not model.head.weight
        assert list(other.generate([1, 2], 6)) == list(model.generate([1, 2], 6))
        other(tokens()).sum().backward()
        assert model.head.weight.grad is None and other.head.weight.grad is not None


def test_importing_the_package_imports_no_models():
    script = "import sys, bullet_core; print([n for n in ('nn', 'optim', 'trainer') if 'bullet_core.' + n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert bc.nn.Linear is nn.Linear and bc.Transformer is nn.Transformer and "Trainer" in dir(bc)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = bc.nothing


def numpy_lstm(x, w_ih, w_hh, b_ih, b_hh):
    h = c = np.zeros((x.shape[0], w_hh.shape[1]))
    sigmoid, out = lambda z: 1 / (1 + np.exp(-z)), []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out, 1), c


def numpy_gru(x, w_ih, w_hh, b_ih, b_hh):
    h = np.zeros((x.shape[0], w_hh.shape[1]))
    sigmoid, out = lambda z: 1 / (1 + np.exp(-z)), []
    for t in range(x.shape[1]):
        (rx, zx, nx), (rh, zh, nh) = (np.split(m, 3, axis=1) for m in (x[:, t] @ w_ih.T + b_ih, h @ w_hh.T + b_hh))
        r, z = sigmoid(rx + rh), sigmoid(zx + zh)
        h = (1 - z) * np.tanh(nx + r * nh) + z * h
        out.append(h)
    return np.stack(out, 1)


def test_recurrent_layers_are_pytorchs_equations():
    x = np.random.default_rng(1).normal(size=(3, 5, 4)).astype("float32")
    lstm, gru = nn.LSTM(4, 6), nn.GRU(4, 6)
    weights = lambda m: [getattr(m, f"{n}_l0").detach().numpy() for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]  # noqa: E731
    y, (h, c) = lstm(bc.asarray(x))
    want, cell = numpy_lstm(x, *weights(lstm))
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(c.detach().numpy()[0], cell, rtol=1e-4, atol=1e-5)
    assert h.shape == (1, 3, 6)
    y, last = gru(bc.asarray(x))
    np.testing.assert_allclose(y.detach().numpy(), numpy_gru(x, *weights(gru)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(last.detach().numpy()[0], y.detach().numpy()[:, -1])
    deep = nn.GRU(4, 6, layers=2, dropout=0.2)
    deep(bc.asarray(x))[0].sum().backward()
    assert all(p.grad is not None for p in deep.parameters())
    # The state carries over.
    first, state = gru(bc.asarray(x[:, :2]))
    second, _ = gru(bc.asarray(x[:, 2:]), state)
    np.testing.assert_allclose(bc.concat([first, second], axis=1).detach().numpy(), y.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_layers_against_numpy():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 8)).astype("float32")
    conv = nn.Conv1d(3, 4, 3, padding=1, stride=2)
    got, w, b = conv(bc.asarray(x)).detach().numpy(), conv.weight.detach().numpy(), conv.bias.detach().numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    want = np.stack([np.einsum("bct,oct->bo", padded[:, :, i : i + 3], w) + b for i in range(0, 8, 2)], -1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    norm = nn.RMSNorm(8)
    np.testing.assert_allclose(
        norm(bc.asarray(x)).detach().numpy(), x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5), rtol=1e-5
    )
    attention = nn.Attention(8, 2, causal=True)
    y = bc.asarray(rng.normal(size=(1, 4, 8)).astype("float32"))
    mask = bc.asarray(np.tril(np.ones((4, 4), bool)))
    free = nn.Attention(8, 2, causal=False)
    free.load_state_dict(attention.state_dict())
    np.testing.assert_allclose(attention(y).detach().numpy(), free(y, mask).detach().numpy(), rtol=1e-4, atol=1e-6)


def test_dropout_is_for_training_and_seeded():
    layer, x = nn.Dropout(0.25), bc.ones((100, 100))
    nn.seed(7)
    first, second = layer(x).numpy(), layer(x).numpy()
    nn.seed(7)
    assert np.array_equal(layer(x).numpy(), first) and not np.array_equal(first, second)
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)} and abs(first.mean() - 1) < 0.05
    assert layer.eval()(x) is x
    with pytest.raises(ValueError, match="probability"):
        nn.Dropout(1.0)


def test_precision_of_layers():
    layer = nn.Linear(4, 3)
    with nn.precision("bfloat16"):
        y = layer(bc.ones((2, 4)))
        assert y.dtype == bc.bfloat16
        y.astype("float32").sum().backward()
    assert layer.weight.grad.dtype == bc.float32 and layer(bc.ones((2, 4))).dtype == bc.float32
    with pytest.raises(ValueError, match="floating"):
        nn.precision("int32").__enter__()


@pytest.mark.parametrize("kind", KINDS)
def test_generation_runs_in_rust_and_is_that_of_forward(kind):
    model = small(**KINDS[kind])
    options = {"temperature": 0.8, "top_k": 9, "top_p": 0.95, "seed": 5}
    fast = list(model.generate([1, 2, 3], 12, **options))
    assert fast == list(bc.generate(model, [1, 2, 3], 12, max_seq=16, **options))
    assert fast == list(model.generate([1, 2, 3], 12, **options)) and len(fast) == 12
    assert list(model.generate([1, 2, 3], 12, **(options | {"seed": 6}))) != fast
    assert list(model.generate([1, 2, 3], 12, stop=fast[4], **options)) == fast[: fast.index(fast[4])]


def test_generation_follows_what_python_changes():
    model, other = small(), small(seed=9)
    wanted = list(other.generate([1, 2], 8, temperature=0))
    before = list(model.generate([1, 2], 8, temperature=0))
    assert wanted != before
    model.load_state_dict(other.state_dict())
    assert list(model.generate([1, 2], 8, temperature=0)) == wanted
    # New objects in place of the parameters.
    model = small()
    for (_, module), (_, source) in zip(model.named_modules(), other.named_modules(), strict=True):
        for name in module._parameters:
            setattr(module, name, nn.Parameter(getattr(source, name).detach().copy()))
    assert list(model.generate([1, 2], 8, temperature=0)) == wanted
    model.requires_grad_(False)
    assert list(model.generate([1, 2], 8, temperature=0)) == wanted
    # A part of another kind: no longer what Rust computes.
    model = small()

    class Silent(nn.Module):
        def forward(self, x):
            return x * 0

    model.blocks[0].attn = Silent()
    changed = list(model.generate([1, 2], 8, temperature=0))
    assert changed == list(bc.generate(model, [1, 2], 8, temperature=0, max_seq=16))
    moved = small().to("float64")
    assert next(iter(moved.generate([1, 2], 1))) < 37 and moved.head.weight.dtype == bc.float64


def test_text_and_its_ends():
    tokenizer = bc.Tokenizer.train("hello wörld", "char")
    model = bc.Transformer(tokenizer, dim=16, layers=1, heads=2, max_seq=8)
    pieces = list(model.generate("he", 20, seed=1))
    text = "".join(pieces)
    assert len(text) == 20 and len(pieces) == 20 and model.text("he", 20, seed=1) == "he" + text
    stop = text[7:9]
    assert "".join(model.generate("he", 20, seed=1, stop=stop)) == text[: text.find(stop)]
    assert "".join(model.generate("he", 20, seed=1, stop="qqq")) == text
    with pytest.raises(ValueError, match="outside the"):
        model.generate("HE")
    with pytest.raises(ValueError, match="needs a tokenizer"):
        small().generate("he")
    with pytest.raises(ValueError, match="top_k = 0"):
        model.generate("he", top_k=0)
    # Bytes of one character in several tokens come as one piece.
    tokenizer = bc.Tokenizer.train("ö" * 300 + "abc", "bpe", vocab_size=256)
    model = bc.Transformer(tokenizer, dim=16, layers=1, heads=2, max_seq=8)
    for piece in (model.generate("a", 30, seed=2), bc.generate(model, "a", 30, tokenizer=tokenizer, max_seq=8, seed=2)):
        assert all(piece)
    assert bc.Tokenizer(tokenizer.to_json()) == tokenizer == pickle.loads(pickle.dumps(tokenizer))


@pytest.mark.parametrize("ending", ["bullet", "safetensors"])
def test_files_keep_a_model_whole(tmp_path, ending):
    tokenizer = bc.Tokenizer.train("hello world", "bpe", vocab_size=260)
    model = bc.Transformer(tokenizer, dim=16, layers=1, heads=2, max_seq=8, tie_embeddings=True)
    path = tmp_path / f"model.{ending}"
    model.save(path)
    other = bc.load(path)
    assert other.config == model.config and other.tokenizer == tokenizer
    assert {n: v.tolist() for n, v in other.state_dict().items()} == {n: v.tolist() for n, v in model.state_dict().items()}
    assert list(other.generate("he", 9)) == list(model.generate("he", 9))
    assert set(bc.load_tensors(path)) == {f"model.{n}" for n in model.state_dict()}
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    net.save(path)
    twin = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).load(path)
    assert twin[1].weight.tolist() == net[1].weight.tolist()
    with pytest.raises(ValueError, match="does not say what model"):
        bc.load(path)
    with pytest.raises(FileNotFoundError):
        bc.load(tmp_path / "none.bullet")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError):
        bc.load(path)


def test_wrong_sizes_are_told():
    with pytest.raises(ValueError, match="must divide"):
        small(heads=5)
    with pytest.raises(ValueError, match=r"expected `learned` or `rope`$"):
        small(positions="none")
    with pytest.raises(ValueError, match="1 to 16 tokens"):
        small()(tokens(length=17))
    with pytest.raises(ValueError, match="must divide"):
        nn.Attention(8, 3)
    with pytest.raises(ValueError, match="swiglu"):
        nn.MLP(8, 8, "tanh")
    with pytest.raises(NotImplementedError, match="forward"):
        nn.Module()(1)
    with pytest.raises(ValueError, match="shape"):
        nn.GRU(3, 4)(bc.ones((2, 5, 2)))


def test_parts_that_would_not_be_found_are_refused():
    class Hidden(nn.Module):
        def __init__(self, value):
            self.parts = value

    for value in ([nn.Parameter(np.ones(2))], {"a": nn.Linear(2, 2)}, [nn.Linear(1, 1), 3]):
        with pytest.raises(TypeError, match="would not be trained"):
            Hidden(value)
    assert Hidden([nn.Linear(2, 2), nn.Linear(2, 2)]).num_parameters() == 12 and Hidden([1, "a"]).parts == [1, "a"]


def test_a_module_is_no_part_of_itself():
    outer, inner = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    outer.append(inner)
    for owner, part in ((outer, outer), (inner, outer)):
        with pytest.raises(ValueError, match="a part of itself"):
            owner.again = part
    with pytest.raises(ValueError, match="a part of itself"):
        inner.append(outer)
    assert len(list(outer.modules())) == 4 and outer(bc.ones((1, 2))).shape == (1, 2)
    # One part in two places is shared, and no cycle.
    outer.again = inner
    assert len(list(outer.parameters())) == 4
