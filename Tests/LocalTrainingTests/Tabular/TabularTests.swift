import Foundation
import LocalTraining
import Tensors
import Testing

struct TabularTests {
    @Test(arguments: [[3, 1], [3, 4, 1], [3, 4, 3, 3]])
    func gradientsMatchCentralDifferences(widths: [Int]) {
        let count = TabularNetwork<Double>.layout(widths).parameterCount
        let network = TabularNetwork<Double>(
            widths: widths,
            l2: 0.01,
            parameters: (0..<count).map { 0.5 * sin(1.3 * Double($0) + 0.2) }
        )
        let inputs = (0..<12).map { cos(0.7 * Double($0)) }
        let targets = widths.last == 1 ? [0, 1, 1, 0] : [0, 1, 2, 1]
        _ = network.pass(inputs, targets: targets, wantsGradient: true)
        let gradient = network.gradient
        let layout = TabularNetwork<Double>.layout(widths)
        let decayed = layout.tensors.indices.filter { layout.tensors[$0].name.hasSuffix("weight") }
            .map { layout.offsets[$0]..<layout.offsets[$0 + 1] }
        for index in gradient.indices {
            let saved = network.parameters[index]
            func loss(_ value: Double) -> Double {
                network.parameters[index] = value
                let mean = network.pass(inputs, targets: targets, wantsGradient: false).loss / 4
                let penalty = decayed.reduce(0) { $0 + network.parameters[$1].reduce(0) { $0 + $1 * $1 } }
                return mean + 0.005 * penalty
            }
            let slope = (loss(saved + 1e-6) - loss(saved - 1e-6)) / 2e-6
            network.parameters[index] = saved
            #expect(abs(slope - gradient[index]) < 1e-7)
        }
    }

    @Test func tablesAreReadAsTheStandardSays() throws {
        let table = try Table(csv: "\u{FEFF}a,b\r\n1,\"x, \"\"y\"\"\n2\"\r\n,\n")
        #expect(table.header == ["a", "b"])
        #expect(table.rows == [["1", "x, \"y\"\n2"], ["", ""]])
        #expect(throws: LocalTrainingError.self) { try Table(header: ["a", "b"], rows: [["1"]]) }
        #expect(throws: LocalTrainingError.self) { try Table(csv: "a,a\n1,2\n") }
        #expect(throws: LocalTrainingError.self) { try Table(csv: "a\n\"1\n").requireWholeRows() }
        #expect(throws: LocalTrainingError.self) { try Table(csv: "") }
    }

    private func tabular(_ config: String) throws -> any ModelArchitecture {
        try ModelArchitectures.make(.init(architecture: "tabular", config: config))
    }

    @Test(arguments: [
        ("/schema", #"{}"#), ("/schema/label", #"{"schema": {"features": [{"column": "a"}]}}"#),
        (
            "/schema/label/positive",
            #"{"schema": {"label": {"column": "y", "positive": "> x"}, "features": [{"column": "a"}]}}"#
        ),
        ("/schema/features", #"{"schema": {"label": {"column": "y"}, "features": []}}"#),
        (
            "/schema/features/0/levels",
            #"{"schema": {"label": {"column": "y"}, "features": [{"column": "a", "type": "category", "levels": ["1", "1"]}]}}"#
        ),
        ("/hidden", #"{"schema": {"label": {"column": "y"}, "features": [{"column": "a"}]}, "hidden": [0]}"#),
        ("/colour", #"{"schema": {"label": {"column": "y"}, "features": [{"column": "a"}]}, "colour": 1}"#),
    ])
    func badSchemasAreRefusedByField(pointer: String, config: String) {
        let error = #expect(throws: ModelConfigurationError.self) { try tabular(config) }
        #expect(error?.pointer == pointer)
    }

    @Test func voiceCommandsAreLearnedFromHashedWords() throws {
        let architecture = try tabular(
            #"{"schema": {"label": {"column": "intent", "levels": ["light", "music", "weather"]}, "features": [{"column": "text", "type": "text", "buckets": 512}]}}"#
        )
        let csv = """
            text,intent
            turn on the light,light
            turn off the kitchen light,light
            please dim the light,light
            play some music,music
            play a song by queen,music
            stop the music,music
            what is the weather like,weather
            will it rain today,weather
            weather in paris,weather
            """
        let instructions = TrainingInstructions(learningRate: 2, batchSize: 3, epochs: 40, seed: 1)
        let trainer = try architecture.makeTrainer(data: .table(Table(csv: csv)), instructions: instructions)
        var model = architecture.initialParameters(seed: 0)
        let delta = try trainer.train(model: model, instructions: instructions).delta.values
        VectorKernels.axpy(1, delta, into: &model.values)
        let unseen = "text,intent\nlight on please,light\nplay queen,music\nrain in paris,weather\n"
        let test = try architecture.makeTrainer(data: .table(Table(csv: unseen)), instructions: instructions)
        #expect(try test.evaluate(model: model, base: nil).hit1 == 3)
    }

    @Test func areasUnderTheCurveAddUpInBins() {
        var generator = Xoshiro256StarStar(seed: 3)
        let scores = (0..<2000).map { index in
            let isPositive = index % 3 == 0
            let probability = Double(generator.nextUniform()) * 0.7 + (isPositive ? 0.3 : 0)
            return (probability: probability, isPositive: isPositive)
        }
        let exact = ReceiverOperatingCurve.area(scores) ?? 0
        let wins = scores.filter(\.isPositive).reduce(0.0) { sum, positive in
            sum + scores.filter { !$0.isPositive }.reduce(0.0) { $0 + ($1.probability < positive.probability ? 1 : 0) }
        }
        #expect(abs(exact - wins / (667 * 1333)) < 1e-9)
        var histogram = ScoreHistogram(Array(scores[..<900]))
        histogram += ScoreHistogram(Array(scores[900...]))
        #expect(histogram == ScoreHistogram(scores))
        #expect(abs((histogram.area ?? 0) - exact) < 0.005)
        #expect(ReceiverOperatingCurve.area([(0.5, true)]) == nil)
        #expect(ReceiverOperatingCurve.area([(0.5, true), (0.5, false)]) == 0.5)
    }
}
