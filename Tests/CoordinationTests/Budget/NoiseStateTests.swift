import Crypto
import DifferentialPrivacy
import Foundation
import TestSupport
import Testing

@testable import Coordination

/// The sealed state of correlated noise, and the arithmetic that it is for.
struct NoiseStateTests {
    /// With as many rows as before, only what a state is bound to tells it from an older one.
    @Test func aStateOpensForItsRunVersionAndKeyOnly() throws {
        let directory = try TemporaryDirectory()
        let key = SymmetricKey(size: .bits256)
        let row = BandedReleases.Row(sums: [1, -2, 3], released: [4, 5, -6])
        let path = directory.path + "/state"
        let writer = try NoiseState.Writer(
            path: path,
            key: key,
            run: "run_1",
            version: 7,
            rowCount: 1,
            parameterCount: 3
        )
        try writer.append([row])
        try writer.finish()
        func open(_ key: SymmetricKey, _ run: String, _ version: Int) throws -> [BandedReleases.Row] {
            try NoiseState(path: path, key: key, run: run, version: version, parameterCount: 3).rows(chunk: 0)
        }
        #expect(try open(key, "run_1", 7) == [row])
        for (key, run, version) in [(key, "run_1", 6), (key, "run_1", 8), (key, "run_2", 7)] {
            let error = #expect(throws: CoordinationError.self) { try open(key, run, version) }
            #expect(error?.code == "noise_state_lost")
        }
        #expect(throws: CoordinationError.self) { try open(SymmetricKey(size: .bits256), "run_1", 7) }
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }

    /// C⁻¹(Cx + z) = x + C⁻¹z: without noise a release is the sum itself, and noise goes through C⁻¹.
    @Test func aReleaseIsTheSumAndTheInverseOfTheNoise() throws {
        let mechanism = try BandedReleases(band: 3, clippingNorm: 1, noiseMultiplier: 1, parameterCount: 2)
        let inputs: [[Int64]] = [[900, -40], [0, 7], [-15, 3000], [77, 77], [5, -600]]
        let step = mechanism.dataGrid.step
        var earlier: [BandedReleases.Row] = []
        for sums in inputs {
            let row = mechanism.release(sums, earlier: earlier, noise: [0, 0])
            for (value, sum) in zip(mechanism.values(of: row), sums) {
                // The guard bits leave less than a thousandth of the noise's own step.
                #expect(abs(value - Double(sum) * step) < 1e-3 * mechanism.noiseStep)
            }
            earlier = Array(([row] + earlier).prefix(2))
        }
        // z in the first row alone: 1, −1/2, −1/8, … of it in the rows that follow.
        let inverse = try BandedMatrixMechanism(
            coefficients: BandedReleases.coefficients(band: 3),
            roundCount: 4,
            minSeparation: 3
        ).inverseCoefficients(count: 4)
        earlier = []
        for t in 0..<4 {
            let row = mechanism.release([0, 0], earlier: earlier, noise: t == 0 ? [1 << 20, 0] : [0, 0])
            let value = mechanism.values(of: row)[0] / mechanism.noiseStep / Double(1 << 20)
            #expect(abs(value - inverse[t]) < 1e-6)
            earlier = Array(([row] + earlier).prefix(2))
        }
    }
}
