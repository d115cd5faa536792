import ArgumentParser
import BenchmarkHarness
import Foundation
import LocalTraining
import Tensors

/// Local training: tokens a second of clients in parallel, beside the matrix products alone and beside PyTorch.
struct TrainingBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "training",
        abstract: "Tokens a second of the character and keyboard models, beside their matrix products and PyTorch."
    )

    @Option(help: "Clients that train at the same time, one thread each.") var clients = 2
    @Option(help: "Repeats of each case.") var repeats = 5
    @Option(help: "A Python with torch (or MARTLET_TEST_PYTHON); without one that part is left out.")
    var python: String?

    @Option(help: "char-small or keyboard only.") var model: String?

    private struct Case {
        var name: String
        var sizes: CIFGLSTMConfiguration
        var tokenizer: String
        var text: String
        var steps: Int
        var batch: Int
        var windows: Int
        /// Tokens a second that the project asks for.
        var required: Double?
    }

    @Option(help: "OpenBLAS cores to compare, besides the one that is chosen; comma-separated, none for an empty text.")
    var cores = "Prescott,Sandybridge,Haswell,SkylakeX"

    func run() throws {
        try checkChoice()
        for item in [characters, keyboard] where model == nil || item.name == model {
            let rate = try measure(item)
            let products = (0..<repeats).map { _ in Double(clients) * productRate(item) }
            MeasuredCase(
                benchmark: "training",
                name: "\(item.name) batch=\(item.batch) clients=\(clients)",
                unit: "tokens/s",
                values: rate,
                limit: products.sorted()[products.count / 2],
                limitName: "the same matrix products alone, \(clients) threads",
                extra: item.required.map { ["required_tokens_per_s": $0] } ?? ["required_ratio": 0.75]
            ).report()
            let peer = try comparePyTorch(item)
            try compareCores(item, peer: peer)
        }
    }

    /// A library that does not know the processor, made of this one: the choice must mend it.
    private func checkChoice() throws {
        print(BLASCore.sentence)
        let chosen = BLASCore.choice.core
        guard BLASCore.bestCore != nil, BLASCore.use("Prescott") == "Prescott" else { return }
        let again = BLASCore.chooseAgain()
        guard again != "Prescott" || ProcessInfo.processInfo.environment["OPENBLAS_CORETYPE"] != nil else {
            throw ValidationError("OpenBLAS still runs Prescott after the choice by features")
        }
        print("from Prescott the choice by features is \(again ?? "none")")
        _ = BLASCore.use(chosen)
    }

    /// The same training with each core's kernels that this processor can run, beside PyTorch in this run.
    private func compareCores(_ item: Case, peer: Double?) throws {
        let chosen = BLASCore.choice.core
        defer { _ = BLASCore.use(chosen) }
        for core in [chosen].compactMap({ $0 }) + cores.split(separator: ",").map(String.init) {
            // A core that needs more than the processor has would be an illegal instruction.
            if core == "SkylakeX" && BLASCore.bestCore != "SkylakeX" || core == "Haswell" && BLASCore.bestCore == nil {
                continue
            }
            guard BLASCore.use(core) == core else { continue }
            MeasuredCase(
                benchmark: "training",
                name: "\(item.name) core=\(core)\(core == chosen ? " (chosen)" : "") clients=\(clients)",
                unit: "tokens/s",
                values: try measure(item),
                limit: peer,
                limitName: peer == nil ? nil : "PyTorch in the same run, \(clients) processes",
                required: peer == nil || core != chosen ? nil : 1.5
            ).report()
        }
    }

    private var characters: Case {
        let alphabet = String(String.UnicodeScalarView((0..<65).compactMap { Unicode.Scalar(UInt32(0x100 + $0)) }))
        let letters = Array(alphabet)
        var generator = Xoshiro256StarStar(seed: 1)
        let text = String((0..<40_000).map { _ in letters[generator.nextIndex(below: 65)] })
        return Case(
            name: "char-small",
            sizes: .init(vocabularySize: 69, embeddingDimension: 32, hiddenDimension: 128),
            tokenizer: "{\"type\": \"char\", \"alphabet\": \"\(alphabet)\"}",
            text: text,
            steps: 80,
            batch: 4,
            windows: 500,
            required: 150_000
        )
    }

    private var keyboard: Case {
        let words = (0..<9996).map { "w\($0)" }
        var generator = Xoshiro256StarStar(seed: 2)
        let text = (0..<6400).map { _ in words[generator.nextIndex(below: 9996)] }.joined(separator: " ")
        return Case(
            name: "keyboard",
            sizes: .init(vocabularySize: 10_000, embeddingDimension: 96, hiddenDimension: 670),
            tokenizer: "{\"type\": \"word\", \"vocabulary\": [\"\(words.joined(separator: "\",\""))\"]}",
            text: text,
            steps: 20,
            batch: 16,
            windows: 320,
            required: nil
        )
    }

    private func measure(_ item: Case) throws -> [Double] {
        let config =
            "{\"embedding_dim\": \(item.sizes.embeddingDimension), \"hidden_dim\": \(item.sizes.hiddenDimension), "
            + "\"stream\": true, \"window\": \(item.steps), \"tokenizer\": \(item.tokenizer)}"
        let architecture = try ModelArchitectures.make(.init(architecture: "cifg-lstm", config: config))
        let model = architecture.initialParameters(seed: 1)
        let instructions = TrainingInstructions(learningRate: 1, batchSize: item.batch, epochs: 1, seed: 1)
        let data = LocalData.texts([item.text])
        let trainers = try (0..<clients).map { _ in
            SendableTrainer(value: try architecture.makeTrainer(data: data, instructions: instructions))
        }
        let tokens = Double(clients * item.windows * item.steps)
        return (0...repeats).map { _ in
            let start = ContinuousClock.now
            Parallel.forEach(count: clients) { index in
                _ = try? trainers[index].value.train(model: model, instructions: instructions)
            }
            return tokens / seconds(since: start)
        }.dropFirst().map { $0 }
    }

    private struct SendableTrainer: @unchecked Sendable {
        // SAFETY: each is used by one iteration only.
        let value: any ArchitectureTrainer
    }

    /// Tokens a second of one thread that does nothing but the matrix products of a step, while the others do the same.
    private func productRate(_ item: Case) -> Double {
        let repetitions = item.name == "keyboard" ? 10 : 60
        let clients = clients
        let start = ContinuousClock.now
        Parallel.forEach(count: clients) { _ in
            for _ in 0..<repetitions { Self.products(item.sizes, steps: item.steps, rows: item.batch) }
        }
        return Double(repetitions * item.steps * item.batch) / seconds(since: start)
    }

    /// The plan of the specification: what one batch multiplies, forward and backward.
    private static func products(_ sizes: CIFGLSTMConfiguration, steps: Int, rows: Int) {
        let (v, d, h) = (sizes.vocabularySize, sizes.embeddingDimension, sizes.hiddenDimension)
        let n = steps * rows
        let a = [Float](repeating: 0.5, count: max(n * max(3 * h, v), v * d, 3 * h * d))
        var c = a
        func multiply(_ transposesA: Bool, _ transposesB: Bool, _ m: Int, _ columns: Int, _ k: Int) {
            a.withUnsafeBufferPointer { a in
                c.withUnsafeMutableBufferPointer { c in
                    guard let a = a.baseAddress, let c = c.baseAddress else { return }
                    func view(_ rows: Int, _ columns: Int, _ isTransposed: Bool) -> MatrixView<Float> {
                        isTransposed
                            ? MatrixView(a, rows: columns, columns: rows).transposed
                            : MatrixView(a, rows: rows, columns: columns)
                    }
                    Float.multiply(
                        view(m, k, transposesA),
                        by: view(k, columns, transposesB),
                        into: MutableMatrixView(c, rows: m, columns: columns),
                        adds: false
                    )
                }
            }
        }
        multiply(false, true, n, 3 * h, d)
        for _ in 0..<steps {
            multiply(false, true, rows, 3 * h, d)
            multiply(false, true, rows, d, h)
        }
        multiply(false, true, n, v, d)
        multiply(true, false, v, d, n)
        multiply(false, false, n, d, v)
        for _ in 0..<steps {
            multiply(false, false, rows, h, d)
            multiply(false, false, rows, d, 3 * h)
        }
        multiply(true, false, 3 * h, d, n)
        multiply(true, false, 3 * h, d, n)
        multiply(true, false, d, h, n)
        multiply(false, false, n, d, 3 * h)
    }

    private func seconds(since start: ContinuousClock.Instant) -> Double {
        let duration = (ContinuousClock.now - start).components
        return Double(duration.seconds) + Double(duration.attoseconds) * 1e-18
    }

    /// The same model and the nearest fused one in PyTorch, as many processes of one thread as there are clients.
    ///
    /// - Returns: Tokens a second of the same model; `nil` without PyTorch.
    private func comparePyTorch(_ item: Case) throws -> Double? {
        guard let python = python ?? ProcessInfo.processInfo.environment["MARTLET_TEST_PYTHON"],
            (try? Command.run([python, "-c", "import torch"])) != nil
        else { return nil }
        var same: Double?
        for kind in ["cifg", "lstm"] {
            let sizes = item.sizes
            let output = try Command.run(
                [
                    python, "-c", Self.script, kind, "\(sizes.vocabularySize)", "\(sizes.embeddingDimension)",
                    "\(sizes.hiddenDimension)", "\(item.steps)", "\(item.batch)", "\(clients)", "\(repeats)",
                ],
                environment: ["OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"]
            ).output
            let values = output.split(whereSeparator: \.isNewline).compactMap { Double($0) }
            MeasuredCase(
                benchmark: "training",
                name: "pytorch \(kind == "cifg" ? item.name : "nn.LSTM(proj_size) of the same sizes as " + item.name) "
                    + "batch=\(item.batch) processes=\(clients)",
                unit: "tokens/s",
                values: values
            ).report()
            if kind == "cifg", !values.isEmpty { same = values.sorted()[values.count / 2] }
        }
        return same
    }

    private static let script = #"""
        import sys, time, torch, multiprocessing as mp
        kind, (V, D, H, T, B, clients, repeats) = sys.argv[1], map(int, sys.argv[2:9])
        class CIFG(torch.nn.Module):
            def __init__(self):
                super().__init__()
                make = lambda *s: torch.nn.Parameter(torch.randn(*s) * 0.1)
                self.E, self.wi, self.wh, self.b, self.p, self.bo = make(V, D), make(3*H, D), make(3*H, D), make(3*H), make(D, H), make(V)
            def forward(self, x):
                z = self.E[x] @ self.wi.T + self.b
                r, c, out = torch.zeros(B, D), torch.zeros(B, H), []
                for t in range(T):
                    f, o, g = (z[t] + r @ self.wh.T).split(H, 1)
                    f = torch.sigmoid(f)
                    c = f * c + (1 - f) * torch.tanh(g)
                    r = (torch.sigmoid(o) * torch.tanh(c)) @ self.p.T
                    out.append(r)
                return torch.stack(out) @ self.E.T + self.bo
        class LSTM(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.E = torch.nn.Parameter(torch.randn(V, D) * 0.1)
                self.bo = torch.nn.Parameter(torch.zeros(V))
                self.rnn = torch.nn.LSTM(D, H, proj_size=D)
            def forward(self, x): return self.rnn(self.E[x])[0] @ self.E.T + self.bo
        def work(barrier, results, steps):
            torch.set_num_threads(1)
            model = (CIFG if kind == "cifg" else LSTM)()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            x, y = torch.randint(4, V, (T, B)), torch.randint(4, V, (T * B,))
            def step():
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x).view(-1, V), y).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
            step()
            for _ in range(repeats):
                barrier.wait()
                begin = time.perf_counter()
                for _ in range(steps): step()
                results.put(steps * T * B / (time.perf_counter() - begin))
                barrier.wait()
        if __name__ == "__main__":
            context = mp.get_context("fork")
            barrier, results = context.Barrier(clients), context.Queue()
            workers = [context.Process(target=work, args=(barrier, results, 30 if V < 1000 else 4)) for _ in range(clients)]
            for worker in workers: worker.start()
            rates = [results.get() for _ in range(clients * repeats)]
            for worker in workers: worker.join()
            for index in range(repeats): print(sum(rates[index * clients:(index + 1) * clients]))
        """#
}
