import Foundation
import Tensors
import WireFormat

/// What sparse updates of one run have left out so far; it stays on the device and goes into the next update.
struct ErrorFeedback: Sendable {
    /// Shape `[parameterCount]`, parameter units; empty before the first sparse update.
    var residual: [Float]

    /// Reads what was kept; a file of another size belongs to another model and is ignored.
    ///
    /// - Throws: `ClientError` where the disk does not give it now.
    init(run: RunID, files: StateFiles, parameterCount: Int) throws {
        residual = []
        guard let data = try files.contents(StateFileName.residual(run)), data.count == 4 * parameterCount else {
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

    /// The values as they are kept.
    var data: Data { residual.withUnsafeBytes { Data($0) } }
}
