import Foundation
import HTTPServing
import LocalTraining
import MartletClient
import Tensors
import TestBenches
import TestSupport
import Testing

/// A histogram in mode `local`, from a device's texts to the server's counts: the noise is the device's own.
@Suite(.timeLimit(.minutes(10)))
struct LocalHistogramTests {
    /// Words of four consonants, so that cleaning finds nothing wrong with them.
    private static let words: [String] = {
        let letters = Array("bcdfghjklmnpqrstvwxz")
        return (0..<2000).map { index in
            var (rest, word) = (index, "")
            for _ in 0..<4 {
                word.append(letters[rest % letters.count])
                rest /= letters.count
            }
            return word
        }
    }()

    /// 1,997 counts of words that the device has not are noise of deviation 2 z √k = 4: their deviation is outside 10 % by
    /// chance with probability 3e-10, their mean outside 0.63 with 3e-12.
    @Test func whatLeavesTheDeviceIsNoisedThere() async throws {
        let count = Self.words.count
        let service = try await Service(makeInitialModel: { _ in
            ParameterVector(zeros: .init([.init(name: "counts", shape: [count])]))
        })
        _ = try await service.post("/v1/populations", #"{"name": "p", "budget": {"epsilon": 50, "delta": 1e-5}}"#)
        let created = try await service.post(
            "/v1/runs",
            RunFile.sample(of: .analytics) {
                $0.cohort += ["goal": 1, "over_selection": 1]
                $0.analytics += ["method": "histogram", "candidates": Self.words, "words_per_client": 4]
                $0.privacy += ["mode": "local", "noise_multiplier": 1]
            }.text
        )
        let run = try #require(created.json["id"] as? String, "\(created.json)")
        #expect(try await service.post("/v1/runs/\(run)/start").status == 200)
        let held = [0, 7, 900]
        let text = held.map { Self.words[$0] }.joined(separator: " ")
        let (client, server) = try await service.servedClient(DeviceTrainer(texts: [text]))
        #expect(try await client.participateOnce(waitSeconds: 0) == .accepted(run: run, round: 1))
        try await service.waitForEnd(of: run)
        let weights = try await service.call("GET", "/v1/runs/\(run)/models/1/weights", token: service.admin)
        let path = service.directory.path + "/counts.safetensors"
        try Data(weights.bytes).write(to: URL(fileURLWithPath: path))
        let counts = try SafetensorsFile(path: path).readAll().values.map(Double.init)
        // One client: the sum is what it sent.
        let noise = counts.indices.filter { !held.contains($0) }.map { counts[$0] }
        let mean = noise.reduce(0, +) / Double(noise.count)
        let deviation = (noise.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(noise.count)).squareRoot()
        #expect(abs(mean) < 0.63 && abs(deviation - 4) < 0.4, "mean \(mean), deviation \(deviation)")
        await server.shutdown(gracePeriod: .seconds(5))
    }
}
