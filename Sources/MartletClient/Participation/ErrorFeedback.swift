import Foundation
import Tensors

/// What sparse updates of one run have left out so far; it stays on the device and goes into the next update.
struct ErrorFeedback: Sendable {
    /// Shape `[parameterCount]`, parameter units; empty before the first sparse update.
    var residual: [Float]
    private let name: String

    /// Reads what was kept; a file of another size belongs to another model and is ignored.
    init(run: String, state: ClientState, parameterCount: Int) {
        name = "residual-" + String(run.filter { $0.isLetter || $0.isNumber || $0 == "_" }.prefix(80)) + ".f32"
        residual = []
        guard let data = try? Data(contentsOf: URL(fileURLWithPath: state.path(name))), data.count == 4 * parameterCount
        else { return }
        let values = data.withUnsafeBytes { raw in
            [Float](unsafeUninitializedCapacity: parameterCount) { buffer, count in
                UnsafeMutableRawBufferPointer(buffer).copyMemory(from: raw)
                count = parameterCount
            }
        }
        if VectorKernels.allFinite(values) { residual = values }
    }

    /// Keeps it, whole or not at all.
    func save(to state: ClientState) throws {
        guard !residual.isEmpty else { return }
        try state.write(name, data: residual.withUnsafeBytes { Data($0) })
    }
}
