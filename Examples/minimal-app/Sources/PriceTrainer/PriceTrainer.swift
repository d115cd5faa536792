public import MartletClient

/// Learns prices from two numbers of each article: a linear model with the tensors `price.intercept` and `price.slope`.
public struct PriceTrainer: LocalTrainer {
    /// What stays on the device: the two numbers and the price.
    private let examples: [(x: Float, y: Float, price: Float)]

    /// Makes up a device's data; every device has others, and all follow the same rule.
    public init(device: Int) {
        examples = (0..<50).map { index in
            let (x, y) = (Float((index * 7 + device) % 11) / 11, Float((index * 3 + device * 5) % 13) / 13)
            return (x, y, 0.5 + 2 * x - y)
        }
    }

    /// The model before any training.
    public static let firstModel = ParameterVector(
        zeros: ParameterLayout([.init(name: "price.intercept", shape: [1]), .init(name: "price.slope", shape: [2])])
    )

    /// Steps of gradient descent on the squared error.
    public func train(model: ParameterVector, instructions: TrainingInstructions) throws -> TrainingResult {
        var model = model
        let start = model
        let rate = Float(instructions.optimizer.learningRate) / Float(examples.count)
        for epoch in 0..<instructions.epochs {
            try instructions.cancellation?.check()
            guard let intercept = model["price.intercept"], let slope = model["price.slope"] else {
                throw LocalTrainingError.modelMismatch(reason: "the model is none of prices")
            }
            var gradient: (Float, Float, Float) = (0, 0, 0)
            for example in examples {
                let error = intercept[0] + slope[0] * example.x + slope[1] * example.y - example.price
                gradient.0 += error
                gradient.1 += error * example.x
                gradient.2 += error * example.y
            }
            try model.write("price.intercept", [intercept[0] - rate * gradient.0])
            try model.write("price.slope", [slope[0] - rate * gradient.1, slope[1] - rate * gradient.2])
            instructions.onProgress?(Double(epoch + 1) / Double(instructions.epochs))
        }
        return TrainingResult(delta: model - start, exampleCount: examples.count)
    }
}
