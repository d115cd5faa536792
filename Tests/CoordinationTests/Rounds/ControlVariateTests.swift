import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// SCAFFOLD: control variates travel with the model and move by the share of clients.
@Suite(.timeLimit(.minutes(10)))
struct ControlVariateTests {
    @Test func scaffoldAveragesDeltasAndMovesTheControlVariateByItsShareOfClients() async throws {
        let bench = try await Bench(.sqlite)
        let (run, clients) = try await bench.startRun(
            try Bench.specification(goal: 2, rounds: 2) { $0.training.algorithm = "scaffold" },
            clients: 4
        )
        let coordinator = bench.coordinator
        let joint = ControlVariates.jointLayout(Bench.layout)
        for (index, client) in clients.prefix(2).enumerated() {
            let assignment = try #require(try await Bench.assignment(coordinator, client))
            #expect(assignment.updateTensors == joint && assignment.control == nil)
            let update = ControlVariates.join(
                model: ParameterVector(layout: Bench.layout, values: [1, 1, 1, 1]),
                control: [Float](repeating: Float(index + 1), count: 4)
            )
            _ = try await coordinator.finishUpdate(
                assignment: assignment.id,
                client: client,
                Bench.received(coordinator, client, assignment.id, update)
            )
        }
        _ = try await Bench.untilSettled(coordinator, run)
        #expect(try await Bench.model(coordinator, run) == [1, 1, 1, 1])
        let version = try await coordinator.model(run: run, version: "1")
        let control = try SafetensorsFile(
            path: coordinator.blobs.path(sha256: try #require(version.controlSha256))
        ).readAll()
        // 2 of 4 clients reported a mean change of 1.5.
        #expect(control.layout == Bench.layout && control.values == [0.75, 0.75, 0.75, 0.75])
        let next = try #require(try await Bench.assignment(coordinator, clients[2]))
        #expect(next.control?.sha256 == version.controlSha256)
    }

    /// Names that could be taken for control variates would mix up the two halves.
    @Test func scaffoldRefusesModelsWithNamesOfControlVariates() async throws {
        let bench = try await Bench(.memory)
        _ = try await bench.coordinator.createPopulation(PopulationRequest(name: "p", budget: nil))
        let specification = try Bench.specification(goal: 2) { $0.training.algorithm = "scaffold" }
        for names in [["scaffold_control/w"], ["w", "scaffold_control/w"], ["scaffold_control/"]] {
            let layout = ParameterLayout(names.map { .init(name: $0, shape: [2]) })
            let model = SafetensorsWriter.encode(ParameterVector(zeros: layout))
            let run = try await bench.coordinator.createRun(specification, initialModel: nil).id
            let path = bench.directory.path + "/spool/first"
            try model.write(to: URL(fileURLWithPath: path))
            let refusal = await refusal {
                try await bench.coordinator.putInitialModel(
                    run: run,
                    spoolFile: path,
                    sha256: Secrets.sha256(Array(model))
                )
            }
            #expect(refusal?.code == "tensor_mismatch" && refusal?.message.contains("rename it") == true)
            // Nor where the model comes another way.
            let other = try await bench.coordinator.createRun(
                specification,
                initialModel: ParameterVector(zeros: layout)
            ).id
            #expect(
                await TestBenches.refusal { try await bench.coordinator.startRun(other) }?.code
                    == "tensor_mismatch"
            )
        }
    }
}
