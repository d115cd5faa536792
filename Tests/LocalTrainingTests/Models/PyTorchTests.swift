import Foundation
import LocalTraining
import Tensors
import Testing

/// The same weights in PyTorch: forward, loss, one SGD and one AdamW step.
///
/// Skipped where torch is not installed.
struct PyTorchTests {
    private static let adapterConfig = #"""
        {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, \#
        "num_key_value_heads": 2, "max_position_embeddings": 64, "lora": {"r": 2, "train": "b"}}
        """#
    private static let decoderConfig = #"""
        {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, \#
        "num_key_value_heads": 2, "max_position_embeddings": 64}
        """#

    private func language(_ architecture: String, _ config: String) throws -> any LanguageArchitecture {
        try #require(
            try ModelArchitectures.make(.init(architecture: architecture, config: config)) as? any LanguageArchitecture
        )
    }

    private let batch = TokenBatch(
        steps: 6,
        rows: 2,
        inputs: [2, 2, 9, 30, 12, 8, 40, 22, 7, 19, 33, 5],
        targets: [9, 30, 12, 8, 40, 22, 7, 19, 33, 5, 3, -1]
    )

    /// What one step of an optimiser does to the whole batch, as training does it.
    private func stepped(_ network: any LanguageNetwork<Float>, _ rule: LocalOptimizerSettings.Rule) -> [Float] {
        _ = network.differentiate(batch)
        var optimizer = LocalOptimizer(
            .init(rule: rule, learningRate: rule == .sgd ? 0.5 : 0.01, weightDecay: rule == .adamw ? 0.1 : 0),
            parameterCount: network.parameters.count
        )
        var parameters = network.parameters
        var gradient = network.gradient
        optimizer.step(&parameters, gradient: &gradient)
        return parameters
    }

    private func compare(_ kind: String, _ architecture: any LanguageArchitecture) throws {
        guard let python = Peer.python(importing: "torch", "safetensors.numpy") else { return }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("torch-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        var model = architecture.initialParameters(seed: 3)
        // Larger than fresh weights, so that nothing is nearly linear.
        for index in model.values.indices { model.values[index] += 0.1 * sin(Float(index)) }
        let network = try architecture.makeNetwork(model: model, base: nil)
        let scores = network.scores(batch)
        let measure = network.measure(batch)
        try SafetensorsWriter.encode(model).write(to: folder.appendingPathComponent("model.safetensors"))
        let request: [String: Any] = ["steps": 6, "rows": 2, "inputs": batch.inputs, "targets": batch.targets]
        try JSONSerialization.data(withJSONObject: request).write(to: folder.appendingPathComponent("batch.json"))
        let output = try Peer.run(python, Self.script, [kind, folder.path])
        struct Answer: Decodable { var loss: Double }
        let answer = try JSONDecoder().decode(Answer.self, from: output)
        #expect(abs(measure.nll / Double(measure.tokens) - answer.loss) < 1e-5)
        let logits = try SafetensorsFile(path: folder.path + "/logits.safetensors").readAll().values
        #expect(logits.count == scores.count)
        for (left, right) in zip(scores, logits) { #expect(abs(left - right) < 1e-5 * max(1, abs(right))) }
        for rule in [LocalOptimizerSettings.Rule.sgd, .adamw] {
            let theirs = try SafetensorsFile(path: folder.path + "/\(rule.rawValue).safetensors").readAll()
            #expect(theirs.layout == model.layout)
            for (left, right) in zip(stepped(network, rule), theirs.values) { #expect(abs(left - right) < 1e-5) }
        }
    }

    @Test func cifgAgrees() throws {
        try compare("cifg", language("cifg-lstm", #"{"embedding_dim": 8, "hidden_dim": 12}"#))
    }

    @Test func decoderAgrees() throws {
        try compare("decoder", language("decoder", Self.decoderConfig))
    }

    @Test func exportsLoadInTransformersAndPeft() throws {
        guard let python = Peer.python(importing: "torch", "transformers", "peft") else { return }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hf-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let base = try language("decoder", Self.decoderConfig).initialParameters(seed: 1)
        let adapted = try language("decoder", Self.adapterConfig)
        var model = adapted.initialParameters(seed: 2)
        for index in model.values.indices { model.values[index] = 0.1 * sin(Float(index)) }
        let directory = ModelDirectory(
            description: .init(architecture: "decoder", config: Self.adapterConfig),
            model: model,
            base: base
        )
        try directory.write(to: folder.path)
        let output = try Peer.run(python, Self.loading, [folder.path])
        struct Answer: Decodable {
            var base, adapted, together: [Double]
        }
        let logits = try JSONDecoder().decode(Answer.self, from: output)
        let single = TokenBatch(steps: 4, rows: 1, inputs: [2, 9, 30, 12], targets: [-1, -1, -1, -1])
        let plain = try language("decoder", Self.decoderConfig).makeNetwork(model: base, base: nil).scores(single)
        let full = try adapted.makeNetwork(model: model, base: base).scores(single)
        // The adapters change something, or the rest would prove nothing.
        #expect(zip(plain, full).contains { abs($0 - $1) > 1e-3 })
        for (ours, theirs) in [(plain, logits.base), (full, logits.adapted), (full, logits.together)] {
            #expect(ours.count == theirs.count)
            #expect(zip(ours, theirs).allSatisfy { abs(Double($0) - $1) < 1e-5 })
        }
    }

    /// The base alone, `peft`'s adapters on it, and what `transformers` makes of the whole directory by itself.
    private static let loading = """
        import json, shutil, sys, torch
        from transformers import AutoModelForCausalLM
        from peft import PeftModel
        whole = sys.argv[1]
        alone = shutil.copytree(whole, whole + "/base", ignore=shutil.ignore_patterns("adapter_*"))
        def logits(model):
            with torch.no_grad(): return model(torch.tensor([[2, 9, 30, 12]])).logits[0].flatten().tolist()
        base = AutoModelForCausalLM.from_pretrained(alone, torch_dtype=torch.float32)
        answer = {"base": logits(base)}
        answer["adapted"] = logits(PeftModel.from_pretrained(base, whole))
        answer["together"] = logits(AutoModelForCausalLM.from_pretrained(whole, torch_dtype=torch.float32))
        print(json.dumps(answer))
        """

    private static let script = """
        import json, sys, torch
        from safetensors.torch import load_file, save_file
        kind, folder = sys.argv[1:]
        torch.set_num_threads(1)
        spec = json.load(open(folder + "/batch.json"))
        T, B = spec["steps"], spec["rows"]
        x, y = torch.tensor(spec["inputs"]).view(T, B), torch.tensor(spec["targets"])
        start = load_file(folder + "/model.safetensors")

        def cifg(w):
            E, H = w["embedding.weight"], w["proj.weight"].shape[1]
            r, c, out = torch.zeros(B, E.shape[1]), torch.zeros(B, H), []
            for t in range(T):
                f, o, g = (E[x[t]] @ w["cell.weight_ih"].T + r @ w["cell.weight_hh"].T + w["cell.bias"]).split(H, 1)
                f = torch.sigmoid(f)
                c = f * c + (1 - f) * torch.tanh(g)
                r = (torch.sigmoid(o) * torch.tanh(c)) @ w["proj.weight"].T
                out.append(r)
            return torch.stack(out) @ E.T + w["output.bias"]

        def norm(v, w): return v * torch.rsqrt((v * v).mean(-1, keepdim=True) + 1e-5) * w

        def decoder(w):
            E = w["model.embed_tokens.weight"]
            heads, groups, d = 4, 2, 4
            h = E[x.T]
            angle = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
            cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
            def turn(v): return v * cos + torch.cat([-v[..., d // 2:], v[..., :d // 2]], -1) * sin
            for i in range(2):
                p = f"model.layers.{i}."
                n = norm(h, w[p + "input_layernorm.weight"])
                def split(name, count): return (n @ w[p + f"self_attn.{name}.weight"].T).view(B, T, count, d).transpose(1, 2)
                q, k, v = turn(split("q_proj", heads)), turn(split("k_proj", groups)), split("v_proj", groups)
                k, v = (m.repeat_interleave(heads // groups, 1) for m in (k, v))
                a = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
                h = h + a.transpose(1, 2).reshape(B, T, -1) @ w[p + "self_attn.o_proj.weight"].T
                n = norm(h, w[p + "post_attention_layernorm.weight"])
                g = torch.nn.functional.silu(n @ w[p + "mlp.gate_proj.weight"].T) * (n @ w[p + "mlp.up_proj.weight"].T)
                h = h + g @ w[p + "mlp.down_proj.weight"].T
            return (norm(h, w["model.norm.weight"]) @ E.T).transpose(0, 1)

        forward = {"cifg": cifg, "decoder": decoder}[kind]
        for name, make in (("sgd", lambda p: torch.optim.SGD(p, lr=0.5)),
                           ("adamw", lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1))):
            w = {key: value.clone().requires_grad_() for key, value in start.items()}
            optimizer = make(w.values())
            logits = forward(w)
            loss = torch.nn.functional.cross_entropy(logits.reshape(T * B, -1), y, ignore_index=-1)
            loss.backward()
            optimizer.step()
            save_file({key: value.detach() for key, value in w.items()}, folder + f"/{name}.safetensors")
        save_file({"logits": logits.detach().contiguous()}, folder + "/logits.safetensors")
        print(json.dumps({"loss": loss.item()}))
        """
}
