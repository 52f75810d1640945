"""Do a student and a teacher belong together? It knows manifests, and nothing of files or logits."""

from export.errors import ModelError
from service.bundle.manifest import Manifest, Role, Task


def teacher_columns(student: Manifest, teacher: Manifest) -> list[int]:
    """For each label of the student the teacher's place of it. Raises ModelError for two that are no pair."""
    problems = {
        "is no student": student.role is not Role.STUDENT,
        f"does {student.task}; only a single label has a margin": student.task is not Task.SINGLE_LABEL,
        f"does {student.task}, its teacher {teacher.task}": student.task is not teacher.task,
        f"reads {student.texts} texts a row, its teacher {teacher.texts}": student.texts != teacher.texts,
        f"knows the labels {', '.join(student.labels)}, its teacher {', '.join(teacher.labels)}": set(student.labels)
        != set(teacher.labels),
    }
    for problem, found in problems.items():
        if found:
            raise ModelError(f"{name_of(student)} {problem}; name a student, and with --teacher its teacher")
    if teacher.role is not Role.TEACHER:
        raise ModelError(f"{name_of(teacher)} is no teacher; give a teacher's bundle with --teacher")
    return [teacher.labels.index(label) for label in student.labels]


def name_of(manifest: Manifest) -> str:
    """name@version"""
    return f"{manifest.name}@{manifest.version}"
