import LocalTraining
import Tensors
import Testing

/// Whatever sizes a server chooses, a device knows what they take before it makes anything.
@Suite(.timeLimit(.minutes(1)))
struct WorkingMemoryTests {
    private static let hostile = [
        (
            "decoder", 4,
            #"{"hidden_size": 65536, "intermediate_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 2, "#
                + #""lora": {"r": 4096, "target_modules": ["down_proj", "q_proj"], "train": "b"}}"#
        ),
        ("decoder", 100_000, #"{"preset": "tiny"}"#),
        ("decoder", 1, #"{"preset": "tiny", "intermediate_size": 262144, "window": 2048, "num_hidden_layers": 256}"#),
        (
            "decoder", 64,
            #"{"preset": "tiny", "num_attention_heads": 1024, "num_key_value_heads": 1, "head_dim": 2, "window": 2048}"#
        ),
        (
            "tabular", 100_000,
            #"{"schema": {"label": {"column": "y"}, "features": [{"column": "a"}]}, "hidden": [65536, 1, 65536]}"#
        ),
        ("cifg-lstm", 100_000, #"{"embedding_dim": 4096, "hidden_dim": 8192}"#),
    ]

    @Test(arguments: TrainingTask.allCases, hostile)
    func whatAServerChoosesIsHeldAgainstTheDevicesLimit(
        _ task: TrainingTask,
        _ sizes: (name: String, batch: Int, config: String)
    ) throws {
        var instructions = TrainingInstructions(learningRate: 0.1, batchSize: sizes.batch, epochs: 1, seed: 1)
        instructions.model = ModelDescription(architecture: sizes.name, config: sizes.config)
        instructions.memoryLimit = 1 << 30
        let model = ParameterVector(zeros: ParameterLayout([.init(name: "w", shape: [1])]))
        let trainer = DeviceTrainer(texts: ["a text"])
        let refused = try #require(
            #expect(throws: LocalTrainingError.self) {
                try trainer.check(task, model: model, instructions: instructions)
            }
        )
        guard case .tooLarge(let count, let limit) = refused else {
            Issue.record("\(refused)")
            return
        }
        #expect(limit == 1 << 30 && count > Double(limit))
        #expect(refused.ownerSentence.contains("1024 MiB (--max-training-bytes)"))
        // Nor is anything made on the way to the data.
        #expect(throws: refused) { try trainer.rehearse(task, model: model, instructions: instructions) }
        #expect(throws: refused) { try trainer.train(model: model, instructions: instructions) }
    }

    /// What people train fits on a telephone.
    @Test(arguments: [
        ("decoder", 16, #"{"preset": "small", "window": 128}"#), ("cifg-lstm", 32, #"{"preset": "keyboard"}"#),
        ("cifg-lstm", 32, #"{"preset": "char-small"}"#),
    ])
    func ordinarySizesAreTaken(_ name: String, _ batch: Int, _ config: String) throws {
        var instructions = TrainingInstructions(learningRate: 0.1, batchSize: batch, epochs: 1, seed: 1)
        instructions.model = ModelDescription(architecture: name, config: config)
        instructions.memoryLimit = 2 << 30
        let model = ParameterVector(zeros: ParameterLayout([.init(name: "w", shape: [1])]))
        let error = #expect(throws: LocalTrainingError.self) {
            try DeviceTrainer(texts: ["a text"]).check(.train, model: model, instructions: instructions)
        }
        guard case .modelMismatch = error else {
            Issue.record("\(error.map { "\($0)" } ?? "taken")")
            return
        }
    }
}
