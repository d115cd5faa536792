import Coordination
import Foundation
import StrictJSON
import Tensors
import TestBenches
import TestSupport
import Testing
import WireFormat

/// The model that a run begins with has the tensors of its base.
@Suite(.timeLimit(.minutes(10)))
struct BaseTensorTests {
    /// A base of other tensors is refused when the run is created, by the first that is wrong, and with a dry run too.
    @Test func aBaseOfOtherTensorsIsRefusedByTheFirstThatIsWrong() async throws {
        let bench = try await Bench(.memory)
        let (run, _) = try await bench.startRun(try Bench.specification())
        var specification = try Bench.specification()
        specification.model.base = try WireCoding.decode(
            RunSpecification.Model.Base.self,
            from: Data(#"{"run": "\#(run)"}"#.utf8)
        )
        func problem(_ tensors: [TensorSpecification]) async throws -> String {
            do {
                try await bench.coordinator.checkBase(of: specification, against: ParameterLayout(tensors))
                return ""
            } catch let error as DocumentError { return error.problems.map { "\($0.pointer) \($0.detail)" }.joined() }
        }
        let (w, b) = (TensorSpecification(name: "w", shape: [3]), TensorSpecification(name: "b", shape: []))
        #expect(try await problem([w, b]) == "")
        #expect(try await problem([w]).contains("/model/base version 0 of run \(run) has tensor 'b'"))
        #expect(try await problem([w, b, .init(name: "c", shape: [1])]).contains("lacks tensor 'c'"))
        #expect(try await problem([.init(name: "w", shape: [4]), b]).contains("tensor 'w' has shape [3], not [4]"))
    }
}
