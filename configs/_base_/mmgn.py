# What a run needs of mmgn, whatever its norms; no key of mmdet's own files is in it, so it goes beside any of them.
# By the time that custom_imports is read, mmengine has looked for the bases after this one: on a current setuptools in
# vain, but for mmgn. An import statement would make this a config of mmengine's other style.
__import__('mmgn')
custom_imports = dict(imports=['mmgn'], allow_failed_imports=False)
custom_hooks = [dict(type='RunRecordHook')]
