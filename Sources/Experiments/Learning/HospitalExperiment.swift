import Foundation
import LocalTraining
import Tensors

/// Heart disease in four hospitals: the exact federated weights, and federated averaging beside pooled and local models.
///
/// All models use one federated standardisation, a run of its own. What is judged is the mean of the four hospitals'
/// accuracies on their test patients.
struct HospitalExperiment {
    static let name = "heart-disease"
    static let sites = ["cleveland", "hungarian", "switzerland", "va"]
    static let cases =
        ["FedSGD", "pooled, full batches", "FedAvg", "pooled, batches of 16"] + sites.map { "\($0) alone" }

    private let server: LearningServer
    private let table: Table
    /// The 13 weights and the bias that the federated run must come to, where the directory has them.
    private let exact: [Double]?

    init(server: LearningServer, data: String) throws {
        self.server = server
        table = try Table(csv: LearningTask.text(data + "/heart-disease.csv"))
        struct Partition: Decodable {
            struct Expected: Decodable { var fedsgdExact: Exact }
            struct Exact: Decodable { var pooledStandardised: Weights }
            struct Weights: Decodable {
                var weights: [Double]
                var bias: Double
            }
            var expected: Expected
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        exact = try FileManager.default.contents(atPath: data + "/heart-partition.json").map {
            let found = try decoder.decode(Partition.self, from: $0).expected.fedsgdExact.pooledStandardised
            return found.weights + [found.bias]
        }
    }

    /// Runs the cases that are open.
    func perform(_ names: [String], seed: UInt64) async throws -> [[LearningPoint]] {
        let statistics = try await train(
            Self.sites,
            #"{"architecture": "tabular-statistics", "config": {"schema": \#(Self.schema)}}"#,
            rounds: 1,
            training: "{}",
            aggregation: #"""
                {"weighting": "uniform", "value_bound": 1000000, "optimizer": {"name": "fedavg", "learning_rate": 4}}
                """#
        )
        let base = try await server.weights(statistics.run, 1)
        var results: [[LearningPoint]] = []
        for name in names { results.append([try await perform(name, statistics.run, base, seed: seed)]) }
        return results
    }

    private func perform(
        _ name: String,
        _ statistics: String,
        _ base: ParameterVector,
        seed: UInt64
    ) async throws -> LearningPoint {
        let isExact = name == "FedSGD" || name == "pooled, full batches"
        let rounds = isExact ? 200 : 15
        let clients = Self.sites.contains { name.hasPrefix($0) } ? [String(name.prefix { $0 != " " })] : Self.sites
        let batchSize = name.hasPrefix("pooled") ? 16 : 4
        let trained = try await train(
            clients,
            isPooled: name.hasPrefix("pooled"),
            #"""
            {"architecture": "tabular", "base": {"run": "\#(statistics)"},
             "config": {"standardization": "federated", "schema": \#(Self.schema)}}
            """#,
            rounds: rounds,
            training: isExact
                ? #"{"submit": "gradient"}"#
                : #"""
                {"local": {"learning_rate": 0.001, "batch_size": \#(batchSize), "epochs": 1000}, "limits": {"max_steps": 100}}
                """#,
            aggregation: #"""
                {"weighting": "examples", "optimizer": {"name": "fedavg", "learning_rate": \#(isExact ? 0.5 : 1)}}
                """#
        )
        let model = try await server.weights(trained.run, rounds)
        var all = TrainingMetrics()
        var accuracies: [Double] = []
        for site in Self.sites {
            let metrics = try judge(site).evaluate(model: model, base: base)
            accuracies.append((metrics.accuracy * 1e4).rounded() / 1e4)
            all += metrics
        }
        var point = LearningPoint(name, seed: seed, round: rounds, all, bytesUp: 0, seconds: trained.seconds)
        point.accuracy = (accuracies.reduce(0, +) / 4 * 1e4).rounded() / 1e4
        point.recallAt3 = nil
        point.sites = accuracies
        if isExact, let exact, let weights = model["layers.0.weight"], let bias = model["layers.0.bias"] {
            point.weightError = zip(Array(weights) + Array(bias), exact).map { abs(Double($0) - $1) }.max()
        }
        point.sign()
        return point
    }

    private func train(
        _ sites: [String],
        isPooled: Bool = false,
        _ model: String,
        rounds: Int,
        training: String,
        aggregation: String
    ) async throws -> (run: String, seconds: Double) {
        let training = try JSONSerialization.jsonObject(with: Data(training.utf8))
        let count = isPooled ? 1 : sites.count
        var parts = try sites.map { try rows($0, "train") }
        if isPooled { parts = [try Table(header: table.header, rows: parts.flatMap(\.rows))] }
        return try await server.train(trainers: parts.map { DeviceTrainer(data: .table($0)) }) { population in
            try LearningCase.data([
                "name": "heart-disease", "population": population, "rounds": rounds, "training": training,
                "model": try JSONSerialization.jsonObject(with: Data(model.utf8)),
                "cohort": ["goal": count, "minimum": count, "over_selection": 1.0],
                "aggregation": try JSONSerialization.jsonObject(with: Data(aggregation.utf8)),
            ])
        }
    }

    private func rows(_ site: String, _ split: String) throws -> Table {
        try table.filtered(column: "site", equals: site).filtered(column: "split", equals: split)
    }

    private func judge(_ site: String) throws -> any ArchitectureTrainer {
        let architecture = try ModelArchitectures.make(
            .init(
                architecture: "tabular",
                config: #"{"standardization": "federated", "schema": \#(Self.schema)}"#
            )
        )
        return try architecture.makeTrainer(
            data: .table(rows(site, "test")),
            instructions: TrainingInstructions(learningRate: 1, batchSize: 1, epochs: 1, seed: 0)
        )
    }

    private static let schema = """
        {"label": {"column": "num", "positive": "> 0"}, "missing": "drop", "features": [
          {"column": "age", "center": 50, "scale": 10}, {"column": "sex"}, {"column": "trestbps", "center": 130, "scale": 20},
          {"column": "chol", "center": 200, "scale": 100}, {"column": "fbs"},
          {"column": "thalach", "center": 140, "scale": 25}, {"column": "exang"}, {"column": "oldpeak"},
          {"column": "cp", "type": "category", "levels": ["1", "2", "3", "4"], "drop_first": true},
          {"column": "restecg", "type": "category", "levels": ["0", "1", "2"], "drop_first": true}]}
        """
}
