import Foundation
import Tensors

/// What sparse updates of one run have left out so far; it stays on the device and goes into the next update.
struct ErrorFeedback: Sendable {
    /// Shape `[parameterCount]`, parameter units; empty before the first sparse update.
    var residual: [Float]

    /// Reads what was kept; a file of another size belongs to another model and is ignored.
    init(run: String, state: ClientState, parameterCount: Int) {
        residual = []
        let path = state.path(Self.fileName(run: run))
        guard let data = try? Data(contentsOf: URL(fileURLWithPath: path)), data.count == 4 * parameterCount else {
            return
        }
        let values = data.withUnsafeBytes { raw in
            [Float](unsafeUninitializedCapacity: parameterCount) { buffer, count in
                UnsafeMutableRawBufferPointer(buffer).copyMemory(from: raw)
                count = parameterCount
            }
        }
        if VectorKernels.allFinite(values) { residual = values }
    }

    /// Where a run's rest is kept.
    static func fileName(run: String) -> String {
        "residual-" + String(run.filter { $0.isLetter || $0.isNumber || $0 == "_" }.prefix(80)) + ".f32"
    }

    /// The values as they are kept.
    var data: Data { residual.withUnsafeBytes { Data($0) } }
}
