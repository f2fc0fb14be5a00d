"""Every table of the first release"""

import sqlalchemy as sa

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("skeleton", sa.String(64), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "person",
                "organisation",
                name="accountkind",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("is_operator", sa.Boolean(), nullable=False),
        sa.Column("quota_bytes", sa.BigInteger(), nullable=True),
        sa.Column("used_bytes", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("creator_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["creator_id"], ["account.id"], name=op.f("fk_account_creator_id_account")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("name", name=op.f("uq_account_name")),
        sa.UniqueConstraint("skeleton", name=op.f("uq_account_skeleton")),
    )
    with op.batch_alter_table("account", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_account_creator_id"), ["creator_id"], unique=False)

    op.create_table(
        "blob",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(160), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lost_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob")),
        sa.UniqueConstraint("digest", name=op.f("uq_blob_digest")),
        sa.UniqueConstraint("location", name=op.f("uq_blob_location")),
    )
    op.create_table(
        "upload_claim",
        sa.Column("upload", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(32), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("upload", name=op.f("pk_upload_claim")),
    )
    with op.batch_alter_table("upload_claim", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_upload_claim_owner"), ["owner"], unique=False)

    op.create_table(
        "api_token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(2048), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_api_token_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_api_token_secret_sha256")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_token_account_id"), ["account_id"], unique=False)

    op.create_table(
        "membership",
        sa.Column("organisation_id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column(
            "role",
            sa.Enum(
                "reader",
                "writer",
                "maintainer",
                "owner",
                name="role",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["member_id"], ["account.id"], name=op.f("fk_membership_member_id")
        ),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["account.id"], name=op.f("fk_membership_organisation_id")
        ),
        sa.PrimaryKeyConstraint("organisation_id", "member_id", name=op.f("pk_membership")),
    )
    with op.batch_alter_table("membership", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_membership_member_id"), ["member_id"], unique=False)

    op.create_table(
        "repository",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column(
            "visibility",
            sa.Enum(
                "public",
                "private",
                name="visibility",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_repository_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repository")),
        sa.UniqueConstraint("name", name=op.f("uq_repository_name")),
    )
    with op.batch_alter_table("repository", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_repository_account_id"), ["account_id"], unique=False)

    op.create_table(
        "blob_link",
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column("blob_id", sa.Integer(), nullable=False),
        sa.Column(
            "form",
            sa.Enum(
                "open",
                "sealed",
                "marked",
                name="form",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("condemned_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["blob_id"], ["blob.id"], name=op.f("fk_blob_link_blob_id")),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name=op.f("fk_blob_link_repository_id")
        ),
        sa.PrimaryKeyConstraint("repository_id", "blob_id", name=op.f("pk_blob_link")),
    )
    with op.batch_alter_table("blob_link", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_blob_link_blob_id"), ["blob_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_blob_link_condemned_at"), ["condemned_at"], unique=False
        )

    op.create_table(
        "manifest",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(160), nullable=False),
        sa.Column("commit", sa.String(40), nullable=False),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("artifact_type", sa.String(255), nullable=True),
        sa.Column("annotations", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("subject_digest", sa.String(160), nullable=True),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("condemned_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_manifest_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name=op.f("fk_manifest_repository_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manifest")),
        sa.UniqueConstraint(
            "repository_id", "commit", name=op.f("uq_manifest_repository_id_commit")
        ),
        sa.UniqueConstraint(
            "repository_id", "digest", name=op.f("uq_manifest_repository_id_digest")
        ),
    )
    with op.batch_alter_table("manifest", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_manifest_account_id"), ["account_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_manifest_condemned_at"), ["condemned_at"], unique=False
        )
        batch_op.create_index(
            "ix_manifest_subject", ["repository_id", "subject_digest"], unique=False
        )

    op.create_table(
        "retired_tag",
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column(
            "name",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("digest", sa.String(160), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name=op.f("fk_retired_tag_repository_id")
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name=op.f("pk_retired_tag")),
    )
    op.create_table(
        "upload",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("is_direct", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_upload_account_id")),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name=op.f("fk_upload_repository_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload")),
    )
    with op.batch_alter_table("upload", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_upload_account_id"), ["account_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_upload_repository_id"), ["repository_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_upload_used_at"), ["used_at"], unique=False)

    op.create_table(
        "direct_upload",
        sa.Column("upload_id", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(160), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("parts_id", sa.String(1024), nullable=False),
        sa.Column("read_back_bytes", sa.BigInteger(), nullable=False),
        sa.Column("read_back_by", sa.String(32), nullable=False),
        sa.Column("read_back_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["upload.id"],
            name=op.f("fk_direct_upload_upload_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_direct_upload")),
    )
    with op.batch_alter_table("direct_upload", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_direct_upload_digest"), ["digest"], unique=False)

    op.create_table(
        "direct_part",
        sa.Column("upload_id", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["upload.id"],
            name=op.f("fk_direct_part_upload_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("upload_id", "number", name=op.f("pk_direct_part")),
    )

    op.create_table(
        "manifest_blob",
        sa.Column("manifest_id", sa.Integer(), nullable=False),
        sa.Column("blob_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blob.id"], name=op.f("fk_manifest_blob_blob_id")),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifest.id"], name=op.f("fk_manifest_blob_manifest_id")
        ),
        sa.PrimaryKeyConstraint("manifest_id", "blob_id", name=op.f("pk_manifest_blob")),
    )
    with op.batch_alter_table("manifest_blob", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_manifest_blob_blob_id"), ["blob_id"], unique=False)

    op.create_table(
        "manifest_child",
        sa.Column("manifest_id", sa.Integer(), nullable=False),
        sa.Column("child_digest", sa.String(160), nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifest.id"], name=op.f("fk_manifest_child_manifest_id")
        ),
        sa.PrimaryKeyConstraint("manifest_id", "child_digest", name=op.f("pk_manifest_child")),
    )
    with op.batch_alter_table("manifest_child", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_manifest_child_child_digest"), ["child_digest"], unique=False
        )

    op.create_table(
        "countersigning",
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column("referrer", sa.String(160), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.Column("made", sa.String(160), nullable=True),
        sa.Column("refused", sa.String(64), nullable=True),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name=op.f("fk_countersigning_repository_id")
        ),
        sa.PrimaryKeyConstraint("repository_id", "referrer", name=op.f("pk_countersigning")),
    )
    op.create_table(
        "tag",
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column(
            "name",
            sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("manifest_id", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifest.id"], name=op.f("fk_tag_manifest_id")),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name=op.f("fk_tag_repository_id")
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name=op.f("pk_tag")),
    )
    with op.batch_alter_table("tag", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tag_manifest_id"), ["manifest_id"], unique=False)

    op.create_table(
        "log_entry",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("name_tag", sa.LargeBinary(), nullable=False),
        sa.Column("statement", sa.String(64), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("logged_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_log_entry")),
        sa.UniqueConstraint("leaf_hash", name=op.f("uq_log_entry_leaf_hash")),
    )
    with op.batch_alter_table("log_entry", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_log_entry_repository"), ["repository"], unique=False)
        batch_op.create_index(batch_op.f("ix_log_entry_statement"), ["statement"], unique=False)

    op.create_table(
        "log_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_state")),
    )
    op.create_table(
        "log_tile",
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "number", name=op.f("pk_log_tile")),
    )
    op.create_table(
        "log_usage",
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", name=op.f("pk_log_usage")),
    )
    op.create_table(
        "log_witness",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_log_witness")),
    )
    op.create_table(
        "logged_release",
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("publishers", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("manifest", sa.String(160), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("origin", "publishers", "seq", name=op.f("pk_logged_release")),
    )
    op.create_table(
        "trusted_publisher",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("claims", sa.String(16384), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["member_id"], ["account.id"], name=op.f("fk_trusted_publisher_member_id_account")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trusted_publisher")),
    )
    with op.batch_alter_table("trusted_publisher", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_trusted_publisher_repository"), ["repository"], unique=False
        )

    op.create_table(
        "spent_identity",
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_spent_identity")),
    )

    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "running",
                "dead",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("every_s", sa.Integer(), nullable=True),
        sa.Column("lease", sa.String(128), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("kind", "subject", name=op.f("uq_job_kind_subject")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index("ix_job_due", ["state", "due_at"], unique=False)

    op.create_table(
        "rate_bucket",
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("tokens", sa.Float(), nullable=False),
        sa.Column("granted", sa.Integer(), nullable=False),
        sa.Column("per_s", sa.Float(), nullable=False),
        sa.Column("burst", sa.Float(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_bucket")),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Nothing of it is worth the write-ahead log; room in each page lets rows change in place.
        op.execute("ALTER TABLE rate_bucket SET UNLOGGED")
        op.execute("ALTER TABLE rate_bucket SET (fillfactor = 50)")


def downgrade() -> None:
    op.drop_table("rate_bucket")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index("ix_job_due")

    op.drop_table("job")
    op.drop_table("spent_identity")
    with op.batch_alter_table("trusted_publisher", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_trusted_publisher_repository"))

    op.drop_table("trusted_publisher")
    op.drop_table("logged_release")
    op.drop_table("log_witness")
    op.drop_table("log_usage")
    op.drop_table("log_tile")
    op.drop_table("log_state")
    with op.batch_alter_table("log_entry", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_log_entry_statement"))
        batch_op.drop_index(batch_op.f("ix_log_entry_repository"))

    op.drop_table("log_entry")
    with op.batch_alter_table("tag", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tag_manifest_id"))

    op.drop_table("tag")
    op.drop_table("countersigning")
    with op.batch_alter_table("manifest_child", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_manifest_child_child_digest"))

    op.drop_table("manifest_child")
    with op.batch_alter_table("manifest_blob", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_manifest_blob_blob_id"))

    op.drop_table("manifest_blob")
    op.drop_table("direct_part")
    with op.batch_alter_table("direct_upload", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_direct_upload_digest"))

    op.drop_table("direct_upload")
    with op.batch_alter_table("upload", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_upload_used_at"))
        batch_op.drop_index(batch_op.f("ix_upload_repository_id"))
        batch_op.drop_index(batch_op.f("ix_upload_account_id"))

    op.drop_table("upload")
    op.drop_table("retired_tag")
    with op.batch_alter_table("manifest", schema=None) as batch_op:
        batch_op.drop_index("ix_manifest_subject")
        batch_op.drop_index(batch_op.f("ix_manifest_condemned_at"))
        batch_op.drop_index(batch_op.f("ix_manifest_account_id"))

    op.drop_table("manifest")
    with op.batch_alter_table("blob_link", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_blob_link_condemned_at"))
        batch_op.drop_index(batch_op.f("ix_blob_link_blob_id"))

    op.drop_table("blob_link")
    with op.batch_alter_table("repository", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_repository_account_id"))

    op.drop_table("repository")
    with op.batch_alter_table("membership", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_membership_member_id"))

    op.drop_table("membership")
    with op.batch_alter_table("api_token", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_token_account_id"))

    op.drop_table("api_token")
    op.drop_table("blob")
    with op.batch_alter_table("upload_claim", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_upload_claim_owner"))

    op.drop_table("upload_claim")
    with op.batch_alter_table("account", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_account_creator_id"))

    op.drop_table("account")
