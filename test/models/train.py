"""Trains the sample model: a small Llama-architecture model on public-domain text, written as GGUF (F16).

Usage: python3 train.py 1500        (steps; the text lies in input.txt beside it; needs numpy and PyTorch)
Writes tiny-shakespeare-3m-f16.gguf into the current folder.
"""

import collections
import math
import re
import struct
import sys
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

VOCABULARY = 1024
WIDTH, LAYERS, HEADS, KV_HEADS, FEED_FORWARD, CONTEXT = 256, 4, 8, 2, 768, 256
HEAD = WIDTH // HEADS
BATCH, SPAN = 24, 160
DROPOUT = 0.1
WORDS = r" ?[A-Za-z']+|\n+| +|[^A-Za-z\s]"
SPACE = "\u2581"
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | upper }}:\n{{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:\n{% endif %}"
)


class Tokenizer:
    """SentencePiece-style BPE: pieces with scores by rank, byte fallback, a mark for the space."""

    def __init__(self, text):
        words = collections.Counter(re.findall(WORDS, text))
        characters = [c.replace(" ", SPACE) for c in sorted(set(text)) if c != "\n"]
        special = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)]
        merges = self._learn(words, VOCABULARY - len(special) - len(characters))
        learnt = merges + characters
        self.pieces = special + learnt
        self.scores = [0.0] * len(special) + [-float(i) for i in range(len(learnt))]
        self.types = [2, 3, 3] + [6] * 256 + [1] * len(learnt)
        self.index = {piece: i for i, piece in enumerate(self.pieces)}
        self.known = {}

    @staticmethod
    def _learn(words, count):
        """The most frequent pairs, joined one after the other."""
        sequences = {word: [c.replace(" ", SPACE) for c in word] for word in words}
        merges = []
        while len(merges) < count:
            pairs = collections.Counter()
            for word, sequence in sequences.items():
                if "\n" not in word:
                    for a, b in zip(sequence, sequence[1:]):
                        pairs[a + b] += words[word]
            best = max(pairs.items(), key=lambda pair: (pair[1], pair[0]))[0]
            merges.append(best)
            for word, sequence in sequences.items():
                sequences[word] = join_pairs(sequence, best)
        return merges

    def encode(self, text):
        tokens = []
        for word in re.findall(WORDS, text):
            if word not in self.known:
                self.known[word] = self._encode_word(word)
            tokens += self.known[word]
        return tokens

    def _encode_word(self, word):
        """Joins the pair with the best score until none is left, as the inference library does."""
        sequence = [c.replace(" ", SPACE) if c != "\n" else "<0x0A>" for c in word]
        while True:
            best = None
            for i, (a, b) in enumerate(zip(sequence, sequence[1:])):
                if a + b in self.index:
                    score = self.scores[self.index[a + b]]
                    if best is None or score > best[0]:
                        best = (score, i, a + b)
            if best is None:
                return [self.index[piece] for piece in sequence]
            _, i, joined = best
            sequence[i : i + 2] = [joined]


def join_pairs(sequence, pair):
    out, i = [], 0
    while i < len(sequence):
        if i + 1 < len(sequence) and sequence[i] + sequence[i + 1] == pair:
            out.append(pair)
            i += 2
        else:
            out.append(sequence[i])
            i += 1
    return out


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.w


FREQUENCIES = 1.0 / (10000 ** (torch.arange(0, HEAD, 2).float() / HEAD))
ANGLES = torch.outer(torch.arange(CONTEXT).float(), FREQUENCIES)
COS, SIN = ANGLES.cos(), ANGLES.sin()


def rope(x):
    """Rotates neighbouring pairs, the order that Llama models in GGUF use."""
    length = x.shape[-2]
    a, b, c, s = x[..., 0::2], x[..., 1::2], COS[:length], SIN[:length]
    return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1 = Norm()
        self.q, self.k = linear(WIDTH, WIDTH), linear(WIDTH, KV_HEADS * HEAD)
        self.v, self.o = linear(WIDTH, KV_HEADS * HEAD), linear(WIDTH, WIDTH)
        self.n2 = Norm()
        self.g, self.u = linear(WIDTH, FEED_FORWARD), linear(WIDTH, FEED_FORWARD)
        self.d = linear(FEED_FORWARD, WIDTH)

    def forward(self, x, mask):
        batch, length, _ = x.shape
        h = self.n1(x)
        q = rope(self.q(h).view(batch, length, HEADS, HEAD).transpose(1, 2))
        k = rope(self.k(h).view(batch, length, KV_HEADS, HEAD).transpose(1, 2))
        v = self.v(h).view(batch, length, KV_HEADS, HEAD).transpose(1, 2)
        k = k.repeat_interleave(HEADS // KV_HEADS, 1)
        v = v.repeat_interleave(HEADS // KV_HEADS, 1)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(HEAD) + mask[:length, :length]
        mixed = F.dropout(scores.softmax(-1), DROPOUT, self.training) @ v
        out = self.o(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        x = x + F.dropout(out, DROPOUT, self.training)
        h = self.n2(x)
        return x + F.dropout(self.d(F.silu(self.g(h)) * self.u(h)), DROPOUT, self.training)


class Model(nn.Module):
    """Token table, blocks, and the table again as the output layer."""

    def __init__(self, tokens):
        super().__init__()
        self.e = nn.Embedding(tokens, WIDTH)
        self.b = nn.ModuleList(Block() for _ in range(LAYERS))
        self.n = Norm()
        nn.init.normal_(self.e.weight, std=0.02)
        for parameter in self.parameters():
            if parameter.dim() == 2 and parameter is not self.e.weight:
                nn.init.normal_(parameter, std=0.02)
        self.mask = torch.full((CONTEXT, CONTEXT), -1e9).triu(1)

    def forward(self, tokens):
        x = self.e(tokens)
        for block in self.b:
            x = block(x, self.mask)
        return self.n(x) @ self.e.weight.T


def sample_batch(data):
    starts = torch.randint(len(data) - SPAN - 1, (BATCH,))
    inputs = torch.stack([data[i : i + SPAN] for i in starts])
    return inputs, torch.stack([data[i + 1 : i + SPAN + 1] for i in starts])


def loss_of(model, batch):
    inputs, targets = batch
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def validate(model, data, step):
    """Loss over the same batches every time."""
    model.eval()
    torch.manual_seed(7)
    with torch.no_grad():
        loss = sum(loss_of(model, sample_batch(data)).item() for _ in range(6)) / 6
    model.train()
    torch.manual_seed(100 + step)
    return loss


def train(model, training, validation, steps):
    """Trains and returns the weights of the best validation."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    best_loss, best, begun = math.inf, None, time.time()
    for step in range(steps):
        warm = min(1, (step + 1) / 60)
        rate = 1.5e-3 * warm * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 5e-5
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(model, sample_batch(training))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            found = validate(model, validation, step)
            print(step, round(loss.item(), 3), round(found, 3), f"{time.time() - begun:.0f} s", flush=True)
            if found < best_loss:
                best_loss = found
                best = {name: value.clone() for name, value in model.state_dict().items()}
    return best


# ---- GGUF ----------------------------------------------------------------------------------------------------------

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5


def text_bytes(text):
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, value):
    packed = {U32: "<I", F32: "<f", BOOL: "<?"}
    return text_bytes(key) + struct.pack("<I", kind) + (
        text_bytes(value) if kind == STRING else struct.pack(packed[kind], value)
    )


def array(key, kind, items):
    return text_bytes(key) + struct.pack("<IIQ", ARRAY, kind, len(items)) + b"".join(items)


def metadata(tokenizer):
    return [
        pair("general.architecture", STRING, "llama"),
        pair("general.name", STRING, "Tiny Shakespeare 3M"),
        pair("general.license", STRING, "cc0-1.0"),
        pair("general.file_type", U32, 1),
        pair("llama.context_length", U32, CONTEXT),
        pair("llama.embedding_length", U32, WIDTH),
        pair("llama.block_count", U32, LAYERS),
        pair("llama.feed_forward_length", U32, FEED_FORWARD),
        pair("llama.attention.head_count", U32, HEADS),
        pair("llama.attention.head_count_kv", U32, KV_HEADS),
        pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        pair("llama.rope.dimension_count", U32, HEAD),
        pair("llama.rope.freq_base", F32, 10000.0),
        pair("llama.vocab_size", U32, len(tokenizer.pieces)),
        pair("tokenizer.ggml.model", STRING, "llama"),
        pair("tokenizer.ggml.pre", STRING, "default"),
        array("tokenizer.ggml.tokens", STRING, [text_bytes(piece) for piece in tokenizer.pieces]),
        array("tokenizer.ggml.scores", F32, [struct.pack("<f", score) for score in tokenizer.scores]),
        array("tokenizer.ggml.token_type", I32, [struct.pack("<i", kind) for kind in tokenizer.types]),
        pair("tokenizer.ggml.bos_token_id", U32, 1),
        pair("tokenizer.ggml.eos_token_id", U32, 2),
        pair("tokenizer.ggml.unknown_token_id", U32, 0),
        pair("tokenizer.ggml.add_bos_token", BOOL, False),
        pair("tokenizer.ggml.add_eos_token", BOOL, False),
        pair("tokenizer.ggml.add_space_prefix", BOOL, False),
        pair("tokenizer.chat_template", STRING, TEMPLATE),
    ]


LAYER_TENSORS = {
    "attn_norm": "n1.w",
    "attn_q": "q.weight",
    "attn_k": "k.weight",
    "attn_v": "v.weight",
    "attn_output": "o.weight",
    "ffn_norm": "n2.w",
    "ffn_gate": "g.weight",
    "ffn_up": "u.weight",
    "ffn_down": "d.weight",
}


def write_gguf(path, tokenizer, weights):
    """Norms in F32, everything else in F16; tensors aligned to 32 bytes."""
    tensors = [("token_embd.weight", weights["e.weight"])]
    for i in range(LAYERS):
        for name, ours in LAYER_TENSORS.items():
            tensors.append((f"blk.{i}.{name}.weight", weights[f"b.{i}.{ours}"]))
    tensors.append(("output_norm.weight", weights["n.w"]))
    pairs = metadata(tokenizer)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, tensor in tensors:
        half = tensor.dim() > 1
        shape = list(tensor.shape)[::-1]
        header += text_bytes(name) + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", extent) for extent in shape)
        header += struct.pack("<IQ", 1 if half else 0, len(data))
        data += tensor.numpy().astype(np.dtype("<f2" if half else "<f4")).tobytes()
        data += b"\0" * (-len(data) % 32)
    with open(path, "wb") as file:
        file.write(header + b"\0" * (-len(header) % 32) + data)


def main():
    torch.manual_seed(1)
    torch.set_num_threads(2)
    with open("input.txt", encoding="utf-8") as file:
        text = file.read()
    tokenizer = Tokenizer(text)
    data = torch.tensor(tokenizer.encode(text))
    cut = int(len(data) * 0.95)
    model = Model(len(tokenizer.pieces))
    print(len(data), "tokens,", sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    weights = train(model, data[:cut], data[cut:], int(sys.argv[1]))
    write_gguf("tiny-shakespeare-3m-f16.gguf", tokenizer, weights)


if __name__ == "__main__":
    main()
