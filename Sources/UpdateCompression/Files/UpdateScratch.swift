/// Memory of one thread that reads updates: a few slots for pieces of files; they grow to the largest piece and stay.
package final class UpdateScratch {
    /// Pieces that are held at the same time: what the fold adds in one pass.
    package static let slotCount = 8

    private var values: [Space] = (0..<slotCount).map { _ in Space() }
    private var scales: [Space] = (0..<slotCount).map { _ in Space() }
    let rotation = UnsafeMutablePointer<Float>.allocate(capacity: UpdateEncoding.rotationBlock)

    /// Takes no memory yet.
    package init() {}

    deinit {
        for space in values + scales { space.pointer?.deallocate() }
        rotation.deallocate()
    }

    func values(_ slot: Int, byteCount: Int) -> UnsafeMutableRawPointer { values[slot].reserve(byteCount) }

    func scales(_ slot: Int, byteCount: Int) -> UnsafeMutableRawPointer { scales[slot].reserve(byteCount) }

    private struct Space {
        var pointer: UnsafeMutableRawPointer?
        var byteCount = 0

        mutating func reserve(_ count: Int) -> UnsafeMutableRawPointer {
            if let pointer, count <= byteCount { return pointer }
            pointer?.deallocate()
            let space = UnsafeMutableRawPointer.allocate(byteCount: max(64, count), alignment: 64)
            pointer = space
            byteCount = max(64, count)
            return space
        }
    }
}
