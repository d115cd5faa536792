extension SchemaMigrations {
    /// What selection, leases, evaluation and asynchronous rounds keep.
    static let scheduling = """
        ALTER TABLE client ADD COLUMN capabilities TEXT NOT NULL DEFAULT '{}';
        ALTER TABLE client ADD COLUMN steps_per_second DOUBLE;
        ALTER TABLE client ADD COLUMN seconds_per_assignment DOUBLE;
        ALTER TABLE run ADD COLUMN started_at DOUBLE;
        ALTER TABLE round ADD COLUMN drawn INTEGER;
        ALTER TABLE round ADD COLUMN draw_key TEXT;
        ALTER TABLE round ADD COLUMN tier_counts TEXT;
        ALTER TABLE assignment ADD COLUMN lease_until DOUBLE;
        ALTER TABLE assignment ADD COLUMN progress DOUBLE;
        ALTER TABLE assignment ADD COLUMN ended_at DOUBLE;
        ALTER TABLE assignment ADD COLUMN tier INTEGER;
        ALTER TABLE assignment ADD COLUMN max_steps INTEGER;
        ALTER TABLE assignment ADD COLUMN counted_round INTEGER;
        ALTER TABLE assignment ADD COLUMN metrics TEXT;
        ALTER TABLE history ADD COLUMN assignment_id TEXT;
        """
}
