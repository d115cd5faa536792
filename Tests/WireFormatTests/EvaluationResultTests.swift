import Foundation
import StrictJSON
import Testing
import WireFormat

/// What a server takes of measurements.
struct EvaluationResultTests {
    /// With privacy a sum that cannot be is cut: a refusal would tell something of one client's data.
    @Test(arguments: ["2e12", "-1e300", "1.7e308", "9223372036854775807", "-3", "1e-320"])
    func sumsOfAPrivateEvaluationAreCutAndNotRefused(_ value: String) throws {
        let document = try JSONValue.parse(
            Array(#"{"num_examples": 1, "metrics": {"nll": \#(value), "tokens": 1}}"#.utf8)
        )
        let nll = try #require(try EvaluationResult.read(document, isPrivate: true).metrics["nll"])
        let stated = try #require(Double(value))
        #expect(nll == max(-0x1p40, min(0x1p40, stated)))
        guard abs(nll) == 0x1p40 else { return }
        #expect(throws: DocumentError.self) { try EvaluationResult.read(document) }
    }

    /// Names are no data: what no server knows is refused whatever is measured.
    @Test func namesAreStillChecked() throws {
        let document = try JSONValue.parse(Array(#"{"num_examples": 1, "metrics": {"No such": 1}}"#.utf8))
        #expect(throws: DocumentError.self) { try EvaluationResult.read(document, isPrivate: true) }
    }

    @Test func whatIsReleasedIsRatesWithinTheirBounds() {
        let rates = ["loss", "top1", "top3"]
        func released(_ sums: [String: Double]) -> [String: Double] {
            MetricSums.released(sums, exampleCount: 4, for: rates, lossBound: 10)
        }
        #expect(
            released(["nll": 12, "loss_tokens": 4, "tokens": 8, "hit1": 2, "hit3": 6])
                == ["nll": 3, "loss_tokens": 1, "tokens": 1, "hit1": 0.25, "hit3": 0.75]
        )
        let nothing = ["nll": 0.0, "loss_tokens": 1, "tokens": 1, "hit1": 0, "hit3": 0]
        #expect(released([:]) == nothing)
        #expect(released(["nll": .nan, "hit1": -.infinity, "hit3": -1, "tokens": 1]) == nothing)
        #expect(released(["nll": .infinity, "hit1": 1e300, "tokens": 1e-300])["nll"] == 10)
        #expect(released(["nll": .infinity, "hit1": 1e300, "tokens": 1e-300])["hit1"] == 1)
    }
}
