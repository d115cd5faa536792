package import CKernels
import Tensors

extension UpdateFile {
    /// Calls `body` with each piece of a range that is contiguous in every one of the files.
    ///
    /// - Parameters:
    ///   - range: Positions in the flat vector.
    ///   - files: Files for the same layout.
    ///   - body: Receives the piece, for `row` and `addSparse`, and its offset in the range.
    package static func forEachPiece(
        _ range: Range<Int>,
        of files: [UpdateFile],
        _ body: (_ piece: Piece, _ start: Int) throws -> Void
    ) rethrows {
        guard let first = files.first else { return }
        if files.allSatisfy({ $0.flatStart != nil }) { return try body(.init(tensor: nil, local: range), 0) }
        try first.forEachTensor(range) { try body(.init(tensor: $0, local: $1), $2) }
    }

    /// Contiguous values of one tensor, or of several tensors.
    package struct Piece {
        /// The tensor's place in the layout; `nil` if the values of all tensors follow each other.
        var tensor: Int?
        /// Positions in the tensor, or in the flat vector if `tensor` is `nil`.
        var local: Range<Int>
        /// The number of values.
        package var count: Int { local.count }
    }

    /// Reads a piece in its encoding, ready for `martlet_fold`.
    ///
    /// - Parameters:
    ///   - piece: From ``forEachPiece(_:of:_:)``.
    ///   - weight: 1 or more.
    ///   - factor: Each decoded value is multiplied by it; from 0 to 1.
    ///   - slot: The slot of `scratch` that holds the bytes as long as the row is used.
    ///   - scratch: Memory of the calling thread.
    /// - Returns: The row; `nil` for a sparse file, which ``addSparse(_:weight:factor:bound:scale:into:_:)`` reads.
    /// - Throws: `SafetensorsError` if the file cannot be read.
    package func row(
        _ piece: Piece,
        weight: Int64,
        factor: Double = 1,
        slot: Int,
        _ scratch: UpdateScratch
    ) throws -> martlet_row? {
        let local = piece.local
        guard let tensor = piece.tensor else {
            let width = encoding == .f32 ? 4 : 2
            let start = (flatStart ?? 0) + local.lowerBound * width
            let data = scratch.values(slot, byteCount: local.count * width)
            try read(start..<(start + local.count * width), 0, .init(start: data, count: local.count * width))
            return martlet_row(data: data, scales: nil, offset: 0, weight: weight, kind: kind, factor: factor)
        }
        let part = parts[tensor]
        func bytes(_ offset: Int, _ count: Int) throws -> UnsafeMutableRawPointer {
            let space = scratch.values(slot, byteCount: count)
            try read(part.data, offset, .init(start: space, count: count))
            return space
        }
        func blocks(_ size: Int32) throws -> UnsafePointer<Float> {
            let (first, end) = (local.lowerBound / Int(size), (local.upperBound + Int(size) - 1) / Int(size))
            let space = scratch.scales(slot, byteCount: 4 * (end - first))
            try read(part.second, 4 * first, .init(start: space, count: 4 * (end - first)))
            return UnsafePointer(space.assumingMemoryBound(to: Float.self))
        }
        switch encoding {
        case .f32, .f16, .bf16:
            let width = encoding == .f32 ? 4 : 2
            let data = try bytes(local.lowerBound * width, local.count * width)
            return martlet_row(data: data, scales: nil, offset: 0, weight: weight, kind: kind, factor: factor)
        case .int8:
            return martlet_row(
                data: try bytes(local.lowerBound, local.count),
                scales: try blocks(MARTLET_I8_BLOCK),
                offset: Int64(local.lowerBound) % Int64(MARTLET_I8_BLOCK),
                weight: weight,
                kind: kind,
                factor: factor
            )
        case .int4:
            let first = local.lowerBound / 2
            return martlet_row(
                data: try bytes(first, (local.upperBound + 1) / 2 - first),
                scales: try blocks(MARTLET_I4_BLOCK),
                offset: Int64(local.lowerBound) % Int64(MARTLET_I4_BLOCK),
                weight: weight,
                kind: kind,
                factor: factor
            )
        case .topk: return nil
        case .rotated1, .rotated2, .rotated4:
            let space = scratch.scales(slot, byteCount: 4 * local.count).assumingMemoryBound(to: Float.self)
            try decodeRotated(tensor, local, into: space, slot, scratch)
            return martlet_row(
                data: space,
                scales: nil,
                offset: 0,
                weight: weight,
                kind: MARTLET_F32,
                factor: factor
            )
        }
    }

    /// Adds the values of a sparse file that are in a piece to integer sums.
    ///
    /// - Parameters:
    ///   - piece: From ``forEachPiece(_:of:_:)``.
    ///   - weight: 1 or more.
    ///   - factor: Each value is multiplied by it; from 0 to 1.
    ///   - bound: The largest absolute value, in parameter units.
    ///   - scale: The inverse of the grid's step, a power of two.
    ///   - sums: Shape `[piece.count]`, grid units, 64 or 128 bits; the weighted values must fit.
    ///   - scratch: Memory of the calling thread.
    /// - Returns: Whether every value was finite and within the bound; else the sums are of no use.
    /// - Throws: `SafetensorsError` if the file cannot be read.
    package func addSparse<Sum: FixedWidthInteger>(
        _ piece: Piece,
        weight: Int64,
        factor: Double = 1,
        bound: Double,
        scale: Double,
        into sums: UnsafeMutablePointer<Sum>,
        _ scratch: UpdateScratch
    ) throws -> Bool {
        guard let tensor = piece.tensor else { return true }
        var isGood = true
        let weight = Sum(weight)
        try forEachKept(parts[tensor], piece.local, scratch) { position, value in
            let value = factor == 1 ? value : Float(Double(value) * factor)
            guard abs(Double(value)) <= bound else {
                isGood = false
                return
            }
            sums[position] += Sum(Int64((Double(value) * scale).rounded(.toNearestOrEven))) * weight
        }
        return isGood
    }

    /// Adds `round(value * scale) * weight` of each value of a range of this file to integer sums.
    ///
    /// - Returns: Whether every value was finite and within the bound; else the sums are of no use.
    /// - Throws: `SafetensorsError` if the file cannot be read.
    package func fold(
        _ range: Range<Int>,
        into sums: UnsafeMutablePointer<Int64>,
        scale: Double,
        weight: Int64,
        bound: Double,
        _ scratch: UpdateScratch
    ) throws -> Bool {
        var isGood = true
        try Self.forEachPiece(range, of: [self]) { piece, start in
            if var row = try row(piece, weight: weight, slot: 0, scratch) {
                if martlet_fold(sums + start, &row, 1, piece.count, scale, bound) >= 0 { isGood = false }
            } else {
                let added = try addSparse(
                    piece,
                    weight: weight,
                    bound: bound,
                    scale: scale,
                    into: sums + start,
                    scratch
                )
                isGood = isGood && added
            }
        }
        return isGood
    }

    private var kind: Int32 {
        switch encoding {
        case .f16: MARTLET_F16
        case .bf16: MARTLET_BF16
        case .int8: MARTLET_I8
        case .int4: MARTLET_I4
        case .f32, .topk, .rotated1, .rotated2, .rotated4: MARTLET_F32
        }
    }
}
